//! Batches: the same results as single calls, in order, with one load per key.

use std::collections::HashSet;
use std::pin::pin;
use std::task::{Context, Waker};

use encx::keys::KeyState;
use encx::kms::KekRef;
use encx::limits::MAX_PLAINTEXT_LEN;
use encx::suite::Suite;
use encx::{Ciphertext, EncryptionContext, Error};
use encx_test_support::{HarnessExt, MINUTE, NAME, SSN, context};
use encx_testkit::{Harness, MemoryKms};

/// More than one chunk of drawn items.
const ITEMS: i64 = 50;

fn value(item: i64) -> Vec<u8> {
    vec![item.to_le_bytes()[0]; usize::try_from(item).unwrap() * 7]
}

fn assert_nonces_differ<'a>(sealed: impl IntoIterator<Item = &'a Ciphertext>) {
    let mut nonces = HashSet::new();
    for sealed in sealed {
        assert!(nonces.insert(&sealed.as_bytes()[18 + 12..18 + 24]));
    }
}

/// The items' iterator may use the same keys and have them dropped, so items are taken before a key is.
#[tokio::test]
async fn items_may_come_from_what_uses_the_same_keys_and_shuts_down() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
    let mut keyrings = Vec::new();
    for tenant in ["a", "b"] {
        let context = context(tenant);
        let first = crypto.encrypt(&context, "makes the key", SSN.row(0)).await;
        first.unwrap();
        keyrings.push(crypto.keyring(&context).await.unwrap());
    }
    let keyring = &keyrings[0];
    for _ in 0..100 {
        keyring.try_encrypt("so that it is at hand", SSN.row(0)).unwrap();
    }
    let items = (0..ITEMS).map(|n| {
        for keyring in keyrings.iter().chain([keyring]) {
            // Often enough that epochs end in between.
            for _ in 0..100 {
                let nested = keyring.try_encrypt(value(n), NAME.row(n));
                let opened = nested.and_then(|sealed| keyring.try_decrypt(&sealed, NAME.row(n)));
                match opened {
                    Ok(opened) if n <= ITEMS / 2 => assert_eq!(opened.as_bytes(), value(n)),
                    opened => assert!(matches!(opened, Err(Error::ShutDown)) && n > ITEMS / 2),
                }
            }
        }
        if n == ITEMS / 2 {
            assert_eq!(crypto.stats().keys, 2);
            let _ = pin!(crypto.shutdown()).poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(crypto.stats().keys, 0);
        }
        (value(n), SSN.row(n))
    });
    for sealed in keyring.encrypt_many(items).await {
        assert!(matches!(sealed, Err(Error::ShutDown)), "{sealed:?}");
    }
}

/// A batch whose items arrive slowly: in between, its key is rotated away, suspended and marked as compromised.
#[tokio::test]
async fn what_happens_to_a_key_while_items_come_counts_for_all_of_them() {
    for many_contexts in [false, true] {
        let harness = Harness::new().await;
        let (crypto, here) = (harness.process().await, context("a"));
        let keyring = crypto.keyring(&here).await.unwrap();
        let old = crypto.encrypt(&here, "warm", SSN.row(0)).await.unwrap();
        let manager = crypto.key_manager();
        let (ask, asked) = std::sync::mpsc::channel();
        let (answer, answered) = std::sync::mpsc::channel();
        let destroying = async {
            let asked = tokio::task::spawn_blocking(move || asked.recv().unwrap()).await;
            asked.unwrap();
            let next = manager.rotate(&here).await.unwrap();
            for state in [KeyState::Suspended, KeyState::Compromised] {
                manager.set_state(&here, old.key_id(), state).await.unwrap();
            }
            answer.send(()).unwrap();
            next.id
        };
        let (of, context) = (crypto.clone(), here.clone());
        let batch = tokio::task::spawn_blocking(move || {
            let items = (0..200_i64).inspect(|n| {
                if *n == 1 {
                    ask.send(()).unwrap();
                    answered.recv().unwrap();
                }
            });
            encx_testkit::block_on(async {
                match many_contexts {
                    true => {
                        of.encrypt_many(items.map(|n| (&context, value(n), SSN.row(n))))
                            .await
                    }
                    false => keyring.encrypt_many(items.map(|n| (value(n), SSN.row(n)))).await,
                }
            })
        });
        let (next, batch) = tokio::join!(destroying, batch);
        let sealed: Vec<_> = batch.unwrap().into_iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(sealed.len(), 200);
        assert_nonces_differ(&sealed);
        for (n, sealed) in (0..).zip(&sealed) {
            assert_eq!(sealed.key_id(), next, "item {n}");
            let opened = crypto.decrypt(&here, sealed, SSN.row(n)).await.unwrap();
            assert_eq!(opened.as_bytes(), value(n));
        }
        // All ciphertexts under the old key are refused likewise.
        for opened in crypto
            .decrypt_many((0..200).map(|n| (&here, &old, SSN.row(n))))
            .await
        {
            assert!(matches!(opened, Err(Error::Compromised { .. })), "{opened:?}");
        }
    }
}

#[tokio::test]
async fn a_keyrings_batch_is_as_many_single_calls() {
    let harness = Harness::new().await;
    // Before the key exists: the first process creates it, the others unwrap it.
    let mut processes = Vec::new();
    for _ in 0..3 {
        let crypto = harness.process().await;
        let keyring = crypto.keyring(&context("a")).await.unwrap();
        processes.push((crypto, keyring));
    }
    for (cold, (crypto, keyring)) in [true, false, true].into_iter().zip(processes) {
        // A poll tells the others of the key.
        harness.clock().advance(MINUTE).await;
        if !cold {
            keyring.encrypt("hot", SSN.row(1)).await.unwrap();
        }
        let (before, hot) = (crypto.stats(), keyring.try_encrypt("", SSN.row(1)).is_ok());
        assert_eq!(hot, !cold);
        let sealed = keyring
            .encrypt_many((0..ITEMS).map(|n| (value(n), SSN.row(n))))
            .await;
        let sealed: Vec<_> = sealed.into_iter().collect::<Result<_, _>>().unwrap();
        if hot {
            assert_eq!(
                crypto.stats().hits - before.hits,
                1 + 50,
                "each item is counted, and the look before"
            );
        }
        assert_eq!(i64::try_from(sealed.len()).unwrap(), ITEMS);
        assert_nonces_differ(&sealed);
        let single = harness.process().await.keyring(&context("a")).await.unwrap();
        for (n, sealed) in (0..).zip(&sealed) {
            let opened = single.decrypt(sealed, SSN.row(n)).await.unwrap();
            assert_eq!(opened.as_bytes(), value(n));
        }

        for reader in [&keyring, &single] {
            let hits = crypto.stats().hits;
            let opened = reader
                .decrypt_many(sealed.iter().zip((0..).map(|n| SSN.row(n))))
                .await;
            for (n, opened) in (0..).zip(opened) {
                assert_eq!(opened.unwrap().as_bytes(), value(n));
            }
            if std::ptr::eq(reader, &raw const keyring) {
                assert_eq!(crypto.stats().hits - hits, 50);
            }
        }
    }
    assert_eq!(harness.kms().calls().generate, 1);
}

#[tokio::test]
async fn one_item_fails_by_itself() {
    let harness = Harness::new().await;
    let long = vec![0; MAX_PLAINTEXT_LEN + 1];
    for hot in [false, true] {
        let crypto = harness.process().await;
        // Without a cached key, so that it must be loaded.
        let context = context(if hot { "hot" } else { "cold" });
        let keyring = crypto.keyring(&context).await.unwrap();
        if hot {
            keyring.encrypt("hot", SSN.row(1)).await.unwrap();
        }
        let items = || {
            (0..40).map(|n| match n {
                7 => (&long[..], SSN.row(n)),
                // The middle of a chunk.
                11 => (&b"x"[..], SSN.row("")),
                _ => (&b"x"[..], SSN.row(n)),
            })
        };
        let of_crypto = items().map(|(plaintext, aad)| (&context, plaintext, aad));
        for sealed in [
            keyring.encrypt_many(items()).await,
            crypto.encrypt_many(of_crypto).await,
        ] {
            assert_eq!(sealed.len(), 40);
            assert_nonces_differ(sealed.iter().flatten());
            for (n, sealed) in sealed.iter().enumerate() {
                match n {
                    7 => assert!(matches!(sealed, Err(Error::PlaintextTooLong { .. }))),
                    11 => assert!(matches!(sealed, Err(Error::Aad(_)))),
                    _ => assert!(sealed.is_ok()),
                }
            }
            let mut sealed: Vec<_> = sealed.into_iter().flatten().collect();
            let rows = (0..40_i64).filter(|n| ![7, 11].contains(n));
            let mut forged = sealed[20].as_bytes().to_vec();
            *forged.last_mut().unwrap() ^= 1;
            sealed[20] = Ciphertext::parse(forged).unwrap();
            let items: Vec<_> = sealed.iter().zip(rows.map(|n| SSN.row(n))).collect();
            let of_crypto = items.iter().map(|(sealed, aad)| (&context, *sealed, aad.clone()));
            for opened in [
                keyring.decrypt_many(items.clone()).await,
                crypto.decrypt_many(of_crypto).await,
            ] {
                for (n, opened) in opened.iter().enumerate() {
                    match n {
                        20 => assert!(matches!(opened, Err(Error::Decrypt { .. }))),
                        _ => assert_eq!(opened.as_ref().unwrap().as_bytes(), b"x"),
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn an_item_that_can_never_be_encrypted_asks_for_no_key() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
    let context = context("a");
    let keyring = crypto.keyring(&context).await.unwrap();
    let calls = harness.kms().calls();
    let sealed = keyring
        .encrypt_many([("x", SSN.row("")), ("y", SSN.row(""))])
        .await;
    assert!(sealed.iter().all(|sealed| matches!(sealed, Err(Error::Aad(_)))));
    let sealed = crypto.encrypt_many([(&context, "x", SSN.row(""))]).await;
    assert!(matches!(sealed[..], [Err(Error::Aad(_))]));
    assert!(
        keyring
            .encrypt_many([(); 0].map(|()| ("", SSN.row(1))))
            .await
            .is_empty()
    );
    assert_eq!(harness.kms().calls(), calls);
    assert!(harness.store().records().is_empty());
}

#[tokio::test]
async fn contexts_may_be_mixed_in_any_order() {
    let harness = Harness::new().await;
    let contexts: Vec<_> = (0..5).map(|n| context(format!("t{n}"))).collect();
    // Runs of one, runs of several, and contexts that recur.
    let order = [0, 1, 0, 1, 1, 1, 2, 0, 3, 3, 2, 2, 4, 0, 4, 4, 1];
    let rows = |at: usize| i64::try_from(at).unwrap();
    let crypto = harness.process().await;
    let mut all: Vec<Vec<Ciphertext>> = Vec::new();
    // Cold, partly hot, and hot.
    for round in 0..3 {
        let process = if round == 1 {
            &harness.process().await
        } else {
            &crypto
        };
        if round == 1 {
            process.encrypt(&contexts[1], "x", SSN.row(1)).await.unwrap();
        }
        // An equal context works like the same one.
        let copies: Vec<EncryptionContext> = contexts.clone();
        let items = order.iter().enumerate().map(|(at, of)| {
            let contexts = if at % 2 == 0 { &contexts } else { &copies };
            (&contexts[*of], format!("{at} of {of}"), NAME.row(rows(at)))
        });
        let sealed = process.encrypt_many(items).await;
        all.push(sealed.into_iter().collect::<Result<_, _>>().unwrap());
    }
    assert_eq!(harness.kms().calls().generate, 5, "one for each context");
    assert_eq!(harness.kms().calls().unwrap, 5);
    assert_nonces_differ(all.iter().flatten());
    for sealed in &all {
        let reader = harness.process().await;
        let unwraps = harness.kms().calls().unwrap;
        for _ in 0..2 {
            let items = order
                .iter()
                .enumerate()
                .map(|(at, of)| (&contexts[*of], &sealed[at], NAME.row(rows(at))));
            let opened = reader.decrypt_many(items).await;
            for (at, opened) in opened.into_iter().enumerate() {
                let text = opened.unwrap().into_string().unwrap();
                assert_eq!(text, format!("{at} of {}", order[at]));
            }
            assert_eq!(harness.kms().calls().unwrap - unwraps, 5, "one call for each key");
        }
        for (at, of) in order.iter().enumerate() {
            let opened = reader
                .decrypt(&contexts[*of], &sealed[at], NAME.row(rows(at)))
                .await;
            assert_eq!(opened.unwrap().as_str().unwrap(), format!("{at} of {of}"));
        }
    }
}

#[tokio::test]
async fn versions_may_be_mixed() {
    let harness = Harness::new().await;
    let (crypto, context) = (harness.process().await, context("a"));
    let mut sealed = Vec::new();
    for version in 0..3 {
        if version > 0 {
            crypto.key_manager().rotate(&context).await.unwrap();
        }
        let items = (0..10).map(|n| (&context, format!("{version} {n}"), SSN.row(n)));
        sealed.extend(crypto.encrypt_many(items).await.into_iter().map(Result::unwrap));
    }
    let ids: HashSet<_> = sealed.iter().map(Ciphertext::key_id).collect();
    assert_eq!(ids.len(), 3);
    let reader = harness.process().await;
    let keyring = reader.keyring(&context).await.unwrap();
    let unwraps = harness.kms().calls().unwrap;
    let order: Vec<_> = (0..30).map(|at| at * 7 % 30).collect();
    let row = |at: usize| SSN.row(i64::try_from(at % 10).unwrap());
    let check = |opened: Vec<Result<encx::Plaintext, Error>>| {
        assert_eq!(opened.len(), 30);
        for (at, opened) in order.iter().zip(opened) {
            let text = opened.unwrap().into_string().unwrap();
            assert_eq!(text, format!("{} {}", at / 10, at % 10));
        }
    };
    check(
        keyring
            .decrypt_many(order.iter().map(|at| (&sealed[*at], row(*at))))
            .await,
    );
    assert_eq!(
        harness.kms().calls().unwrap - unwraps,
        2,
        "the active one was there"
    );
    let hits = reader.stats().hits;
    check(
        keyring
            .decrypt_many(order.iter().map(|at| (&sealed[*at], row(*at))))
            .await,
    );
    let items = order.iter().map(|at| (&context, &sealed[*at], row(*at)));
    check(reader.decrypt_many(items).await);
    assert_eq!(reader.stats().hits - hits, 60);
    assert_eq!(harness.kms().calls().unwrap - unwraps, 2);
    // All three cold, in one batch.
    let items = order.iter().map(|at| (&context, &sealed[*at], row(*at)));
    check(harness.process().await.decrypt_many(items).await);
    assert_eq!(harness.kms().calls().unwrap - unwraps, 2 + 3);
}

#[tokio::test]
async fn hits_are_counted_item_by_item() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
    let contexts = ["a", "b"].map(context);
    for context in &contexts {
        crypto.encrypt(context, "x", SSN.row(1)).await.unwrap();
    }
    let hits = || crypto.stats().hits;
    let items = || (0..30).map(|n| (&contexts[n % 2], "x", SSN.row(1)));
    let before = hits();
    let sealed = crypto.encrypt_many(items()).await;
    assert_eq!(hits() - before, 30);
    let sealed: Vec<_> = sealed.into_iter().map(Result::unwrap).collect();
    let before = hits();
    let items = sealed
        .iter()
        .enumerate()
        .map(|(n, sealed)| (&contexts[n % 2], sealed, SSN.row(1)));
    assert!(crypto.decrypt_many(items).await.iter().all(Result::is_ok));
    assert_eq!(hits() - before, 30);
    let mut buffer = Vec::new();
    let keyring = crypto.keyring(&contexts[0]).await.unwrap();
    let before = hits();
    keyring.encrypt_into("x", SSN.row(1), &mut buffer).await.unwrap();
    keyring.decrypt_in_place(&mut buffer, SSN.row(1)).await.unwrap();
    assert_eq!(hits() - before, 2);
    assert_eq!(crypto.stats().misses, 2, "the two that made keys");
}

#[tokio::test]
async fn batches_of_either_suite_open_as_they_should() {
    let harness = Harness::new().await;
    let plain = harness
        .builder()
        .encrypt_with(Suite::Xaes256Gcm)
        .accept_uncommitted();
    let (plain, strict) = (plain.build().await.unwrap(), harness.process().await);
    let context = context("a");
    let keyring = plain.keyring(&context).await.unwrap();
    let sealed = keyring.encrypt_many((0..20).map(|n| ("x", SSN.row(n)))).await;
    let sealed: Vec<_> = sealed.into_iter().map(Result::unwrap).collect();
    assert!(sealed.iter().all(|sealed| sealed.suite() == Suite::Xaes256Gcm));
    let items = || sealed.iter().zip((0..).map(|n| SSN.row(n)));
    assert!(keyring.decrypt_many(items()).await.iter().all(Result::is_ok));
    let strict = strict.keyring(&context).await.unwrap();
    let refused = |opened: Vec<Result<encx::Plaintext, Error>>| {
        assert!(
            opened
                .iter()
                .all(|opened| matches!(opened, Err(Error::SuiteNotAccepted { .. })))
        );
    };
    refused(strict.decrypt_many(items()).await);
    strict.encrypt("hot", SSN.row(1)).await.unwrap();
    refused(strict.decrypt_many(items()).await);
}

/// The first key is in memory, and is withdrawn while the second is loaded.
#[tokio::test]
async fn a_key_withdrawn_while_the_batch_waits_for_others_is_not_used() {
    let (harness, slow) = (Harness::new().await, MemoryKms::new());
    let builder = || {
        let kek = KekRef::new("slow".parse().unwrap(), "memory/default".parse().unwrap());
        let builder = harness.builder().kms_named("slow", slow.clone());
        builder.kek_for("tenantId", "b", kek)
    };
    let (a, b) = (context("a"), context("b"));
    let maker = builder().build().await.unwrap();
    let sealed_a = maker.encrypt(&a, "x", SSN.row(1)).await.unwrap();
    let sealed_b = maker.encrypt(&b, "x", SSN.row(1)).await.unwrap();
    for encrypts in [false, true] {
        let process = builder().build().await.unwrap();
        slow.hold();
        let before = harness.kms().calls();
        let batch = {
            let (process, a, b) = (process.clone(), a.clone(), b.clone());
            let (sealed_a, sealed_b) = (sealed_a.clone(), sealed_b.clone());
            tokio::spawn(async move {
                if encrypts {
                    let items = [(&a, "x", SSN.row(1)), (&b, "x", SSN.row(1))];
                    let done = process.encrypt_many(items).await;
                    done.into_iter().map(|done| done.map(drop)).collect::<Vec<_>>()
                } else {
                    let items = [(&a, &sealed_a, SSN.row(1)), (&b, &sealed_b, SSN.row(1))];
                    let done = process.decrypt_many(items).await;
                    done.into_iter().map(|done| done.map(drop)).collect()
                }
            })
        };
        slow.until_in_flight(1).await;
        while process.stats().keys == 0 {
            tokio::task::yield_now().await;
        }
        assert_ne!(harness.kms().calls(), before, "the first was unwrapped");
        let manager = process.key_manager();
        let id = sealed_a.key_id();
        manager.set_state(&a, id, KeyState::Suspended).await.unwrap();
        slow.release();
        let done = batch.await.unwrap();
        match &done[0] {
            Err(Error::NoActiveKey) if encrypts => {}
            Err(Error::Suspended { id: refused, .. }) if !encrypts && *refused == id => {}
            other => panic!("{other:?}"),
        }
        done[1].as_ref().unwrap();
        manager.set_state(&a, id, KeyState::Active).await.unwrap();
    }
}
