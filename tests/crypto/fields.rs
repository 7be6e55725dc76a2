//! Round trips: single calls, keyrings and batches.

use std::collections::HashSet;

use encx::suite::Suite;
use encx::{Ciphertext, Error};
use encx_test_support::{HarnessExt, SSN, context};
use encx_testkit::Harness;

#[tokio::test]
async fn what_one_process_encrypts_another_decrypts() {
    let harness = Harness::new().await;
    let (writer, reader) = (harness.process().await, harness.process().await);
    let context = context("a");
    for len in [0, 1, 15, 16, 17, 64, 1000, 70_000] {
        let plaintext = vec![0x5a; len];
        let sealed = writer.encrypt(&context, &plaintext, SSN.row(1)).await.unwrap();
        assert_eq!(sealed.plaintext_len(), len);
        assert_eq!(sealed.as_bytes().len(), len + 90);
        let parsed = Ciphertext::parse(sealed.as_bytes()).unwrap();
        assert_eq!(
            reader
                .decrypt(&context, &parsed, SSN.row(1))
                .await
                .unwrap()
                .as_bytes(),
            plaintext
        );
    }
    assert_eq!(
        (harness.kms().calls().generate, harness.kms().calls().unwrap),
        (1, 1)
    );
}

#[tokio::test]
async fn encrypting_twice_gives_different_ciphertexts() {
    let crypto = Harness::new().await.process().await;
    let mut seen = HashSet::new();
    for _ in 0..200 {
        assert!(seen.insert(crypto.encrypt(&context("a"), "same", SSN.row(1)).await.unwrap()));
    }
}

#[tokio::test]
async fn decryption_never_makes_a_key() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
    let sealed = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    let refused = crypto
        .decrypt(&context("b"), &sealed, SSN.row(1))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::UnknownKey { .. }));
    assert!(
        crypto.keyring(&context("c")).await.is_ok(),
        "a keyring may come before its key"
    );
    assert_eq!(harness.store().records().len(), 1);
}

#[tokio::test]
async fn a_service_can_forbid_keys_on_first_use() {
    let harness = Harness::new().await;
    let crypto = harness
        .builder()
        .create_on_first_use(false)
        .build()
        .await
        .unwrap();
    assert!(matches!(
        crypto.encrypt(&context("a"), "x", SSN.row(1)).await,
        Err(Error::NoKeys)
    ));
    assert_eq!(harness.kms().calls().total(), 0);
    crypto.key_manager().create(&context("a")).await.unwrap();
    assert!(crypto.encrypt(&context("a"), "x", SSN.row(1)).await.is_ok());
}

#[tokio::test]
async fn a_keyring_works_without_waiting_once_its_key_is_there() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
    let context = context("a");
    let keyring = crypto.keyring(&context).await.unwrap();
    assert!(matches!(
        keyring.try_encrypt("x", SSN.row(1)),
        Err(Error::NotReady)
    ));
    assert!(Error::NotReady.is_retryable());
    let sealed = keyring.encrypt("x", SSN.row(1)).await.unwrap();
    assert_eq!(keyring.try_decrypt(&sealed, SSN.row(1)).unwrap().as_bytes(), b"x");
    let again = keyring.try_encrypt("y", SSN.row(2)).unwrap();
    assert_eq!(
        crypto
            .decrypt(&context, &again, SSN.row(2))
            .await
            .unwrap()
            .as_bytes(),
        b"y"
    );

    let other = harness.process().await.keyring(&context).await.unwrap();
    assert!(
        other.try_encrypt("z", SSN.row(3)).is_ok(),
        "`keyring` loads the active key"
    );
    assert_eq!(other.context(), context);
    assert_eq!(other.decrypt(&again, SSN.row(2)).await.unwrap().as_bytes(), b"y");
}

#[tokio::test]
async fn batches_mix_contexts_and_fail_item_by_item() {
    let harness = Harness::new().await;
    let writer = harness.process().await;
    let contexts: Vec<_> = (0..20).map(|n| context(format!("t{n}"))).collect();
    let items: Vec<_> = (0..100)
        .map(|n| {
            (
                &contexts[n % 20],
                format!("value {n}"),
                SSN.row(i64::try_from(n).unwrap()),
            )
        })
        .collect();
    let sealed: Vec<_> = writer
        .encrypt_many(items)
        .await
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(harness.kms().calls().generate, 20);

    let polls = harness.store().polls();
    let reader = harness.process().await;
    while harness.store().polls() == polls {
        // Its first poll would repeat the reads below.
        tokio::task::yield_now().await;
    }
    let loads = harness.store().loads();
    let mut items: Vec<_> = (0..100)
        .map(|n| (&contexts[n % 20], &sealed[n], SSN.row(i64::try_from(n).unwrap())))
        .collect();
    items[3].2 = SSN.row(4);
    items[5].0 = &contexts[6];
    items[7].2 = SSN.row("");
    let opened = reader.decrypt_many(items).await;
    assert_eq!(
        harness.store().loads(),
        loads + 2,
        "one query for all contexts, one for the unknown key"
    );
    assert_eq!(harness.kms().calls().unwrap, 20);
    for (n, opened) in opened.into_iter().enumerate() {
        match n {
            3 => assert!(matches!(opened, Err(Error::Decrypt { .. }))),
            5 => assert!(matches!(opened, Err(Error::UnknownKey { .. }))),
            7 => assert!(matches!(opened, Err(Error::Aad(_)))),
            _ => assert_eq!(opened.unwrap().into_string().unwrap(), format!("value {n}")),
        }
    }
    assert!(
        reader
            .encrypt_many([(); 0].map(|()| (&contexts[0], "", SSN.row(1))))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn reencryption_is_due_after_a_rotation_and_for_another_suite() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
    let context = context("a");
    let old = crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    assert!(!crypto.needs_reencryption(&context, &old).await.unwrap());
    crypto.key_manager().rotate(&context).await.unwrap();
    let new = crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    assert!(crypto.needs_reencryption(&context, &old).await.unwrap());
    assert!(!crypto.needs_reencryption(&context, &new).await.unwrap());
    let keyring = crypto.keyring(&context).await.unwrap();
    assert!(keyring.needs_reencryption(&old).await.unwrap());

    let other = harness
        .builder()
        .encrypt_with(Suite::Xaes256Gcm)
        .accept_uncommitted()
        .build()
        .await
        .unwrap();
    let calls = harness.kms().calls().total();
    assert!(other.needs_reencryption(&context, &new).await.unwrap());
    assert_eq!(harness.kms().calls().total(), calls, "no KMS is called");
    let unknown = crypto
        .needs_reencryption(&encx_test_support::context("b"), &new)
        .await
        .unwrap_err();
    assert!(matches!(unknown, Error::UnknownKey { .. }));
}

#[tokio::test]
async fn nothing_prints_a_secret() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
    let context = context("a");
    let secret = "hunter2-the-secret";
    let sealed = crypto
        .encrypt(&context, secret, SSN.row("alice-the-row"))
        .await
        .unwrap();
    let opened = crypto
        .decrypt(&context, &sealed, SSN.row("alice-the-row"))
        .await
        .unwrap();
    let keyring = crypto.keyring(&context).await.unwrap();
    let refused = crypto
        .decrypt(&context, &sealed, SSN.row("bob"))
        .await
        .unwrap_err();
    let shown = format!(
        "{crypto:?} {keyring:?} {sealed:?} {opened:?} {refused:?} {refused} {:?} {:?} {:?}",
        harness.builder(),
        crypto.key_manager(),
        SSN.row("alice-the-row"),
    );
    assert!(!shown.contains("hunter2") && !shown.contains("alice"), "{shown}");
    assert!(shown.contains("Plaintext([REDACTED])"));
}
