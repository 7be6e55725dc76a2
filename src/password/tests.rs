use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use encx_core::aad::Field;
use encx_core::key::{DataKey, DataKeyId, Derivation};

use super::*;

/// From docs/format.md, which `scripts/check_format.py` computes with Argon2's reference implementation.
const KNOWN: &str = "$encx$v=1,k=01a2053d-7b01-7cc1-b36a-182ccc288e45$argon2id$v=19$m=64,t=1,p=1\
                     $AAECAwQFBgcICQoLDA0ODw$ujeJXYe2DK6th2QB2or6RNmBPkvYSQx8UVh+c8Rba3Y";

fn known_id() -> DataKeyId {
    "01a2053d-7b01-7cc1-b36a-182ccc288e45".parse().unwrap()
}

fn counting<const N: usize>() -> [u8; N] {
    std::array::from_fn(|at| u8::try_from(at).unwrap())
}

#[test]
fn a_hash_is_pinned() {
    let derivation = Derivation::new(&DataKey::copy_from(&counting::<32>()).unwrap());
    let place = Field::new("users", "password").row(7);
    let pepper = derivation.derive(&pepper_info(&place).unwrap());
    let params = PasswordParams::insecure_new(64, 1, 1).unwrap();
    let output = argon2id(params, &pepper, b"correct horse", &counting()).unwrap();
    let bytes = *output.0;
    let parsed = PasswordHash::parse(KNOWN).unwrap();
    assert!(output.is_of(&parsed));
    let hash = output.into_hash(known_id(), params, counting());
    assert_eq!(hash.as_str(), KNOWN);
    assert_eq!(parsed, hash);
    assert_eq!((parsed.key_id(), parsed.params()), (known_id(), params));
    for at in 0..OUTPUT_LEN {
        let mut other = Output(Zeroizing::new(bytes));
        other.0[at] ^= 1;
        assert!(!other.is_of(&parsed), "byte {at}");
    }
}

/// So a pepper that was imported from elsewhere, by the format alone, computes the same.
#[test]
fn an_imported_pepper_is_what_the_secret_is_derived_from() {
    use crate::keys::KeyUsage;
    use crate::{Crypto, EncryptionContext};
    use encx_testkit::{MemoryKeyStore, MemoryKms, block_on};

    block_on(async {
        let params = PasswordParams::insecure_new(64, 1, 1).unwrap();
        let builder = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new());
        let crypto = builder.password_params(params).build().await.unwrap();
        let login = EncryptionContext::from_pairs([("purpose", "login")]).unwrap();
        let pepper = || DataKey::copy_from(&counting::<32>()).unwrap();
        let peppers = crypto.key_manager().for_usage(KeyUsage::Pepper);
        peppers.import(&login, pepper()).await.unwrap();
        let place = Field::new("users", "password").row(7);
        let stored = crypto.hash_password(&login, "correct horse", &place).await;
        let stored = stored.unwrap();
        let secret = Derivation::new(&pepper()).derive(&pepper_info(&place).unwrap());
        let output = argon2id(params, &secret, b"correct horse", stored.salt()).unwrap();
        assert!(output.is_of(&stored));
    });
}

/// One text from two keyboards: `ñ` as one character, and as `n` with a tilde.
#[test]
fn what_looks_the_same_is_the_same_password() {
    let prepared = |text: &str| {
        let Prepared { bytes, raw } = prepare(text.as_bytes()).unwrap();
        assert_eq!(
            bytes.capacity(),
            bytes.len(),
            "it did not grow, which would leave a copy"
        );
        assert_eq!(raw.is_some(), *bytes != text.as_bytes());
        assert!(raw.is_none_or(|raw| *raw == text.as_bytes()));
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    for (text, expected) in [
        ("man\u{303}ana", "ma\u{f1}ana"),
        ("ma\u{f1}ana", "ma\u{f1}ana"),
        (
            "a\u{a0}b\u{1680}c\u{2000}d\u{200a}e\u{202f}f\u{205f}g\u{3000}",
            "a b c d e f g ",
        ),
        // RFC 8265 maps neither case nor width, and drops nothing.
        (
            "Stra\u{df}e \u{ff21} \u{fb01} \t\u{200b}",
            "Stra\u{df}e \u{ff21} \u{fb01} \t\u{200b}",
        ),
        ("\u{2126}\u{1112}\u{1161}\u{11ab}", "\u{3a9}\u{d55c}"),
        // Some characters have a longer composed form.
        ("\u{1d160}", "\u{1d158}\u{1d165}\u{1d16e}"),
    ] {
        assert_eq!(prepared(text), expected);
        assert_eq!(prepared(expected), expected);
    }
    // Bytes that are not text stay unchanged.
    let Prepared { bytes, raw } = prepare(b"\xffn\xcc\x83").unwrap();
    assert_eq!((bytes.as_slice(), raw), (b"\xffn\xcc\x83".as_slice(), None));
    assert!(matches!(prepare(b""), Err(PasswordError::Empty)));
    assert!(matches!(
        prepare(&[b'a'; 4097]),
        Err(PasswordError::TooLong { found: 4097 })
    ));
}

/// Earlier versions hashed the bytes unchanged.
#[test]
fn a_hash_of_bytes_that_were_not_normalised_verifies_and_asks_for_a_new_one() {
    use crate::keys::KeyUsage;
    use crate::{Crypto, EncryptionContext};
    use encx_testkit::{MemoryKeyStore, MemoryKms, block_on};

    block_on(async {
        let params = PasswordParams::insecure_new(64, 1, 1).unwrap();
        let builder = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new());
        let crypto = builder.password_params(params).build().await.unwrap();
        let login = EncryptionContext::from_pairs([("purpose", "login")]).unwrap();
        let pepper = || DataKey::copy_from(&counting::<32>()).unwrap();
        let peppers = crypto.key_manager().for_usage(KeyUsage::Pepper);
        let id = peppers.import(&login, pepper()).await.unwrap().id;
        let place = Field::new("users", "password").row(7);
        let secret = Derivation::new(&pepper()).derive(&pepper_info(&place).unwrap());
        let (composed, decomposed) = ("ma\u{f1}ana", "man\u{303}ana");
        let output = argon2id(params, &secret, decomposed.as_bytes(), &counting()).unwrap();
        let old = output.into_hash(id, params, counting());
        let verify = async |hash: &PasswordHash, typed: &str| {
            let verdict = crypto.verify_password(&login, hash, typed, &place);
            verdict.await.unwrap()
        };
        let again = PasswordVerdict::Match { needs_rehash: true };
        assert_eq!(verify(&old, decomposed).await, again);
        assert_eq!(
            verify(&old, composed).await,
            PasswordVerdict::NoMatch,
            "as before"
        );
        let new = crypto.hash_password(&login, decomposed, &place).await.unwrap();
        for typed in [composed, decomposed] {
            let verdict = verify(&new, typed).await;
            assert_eq!(verdict, PasswordVerdict::Match { needs_rehash: false });
        }
        assert_eq!(verify(&new, "manana").await, PasswordVerdict::NoMatch);
    });
}

/// Does not compile if Argon2's output implements `==`, which stops at the first different byte. The `_`
/// would then be ambiguous.
#[test]
fn what_argon2_gives_is_compared_in_constant_time_or_not_at_all() {
    trait OneOf<T> {
        fn there_is_one() {}
    }
    impl<T> OneOf<()> for T {}
    struct ByEquality;
    impl<T: PartialEq> OneOf<ByEquality> for T {}
    <Output as OneOf<_>>::there_is_one();
}

/// RFC 9106, section 5.3: the crate uses the secret where the RFC does.
#[test]
fn the_secret_is_argon2s() {
    let params = argon2::ParamsBuilder::new()
        .m_cost(32)
        .t_cost(3)
        .p_cost(4)
        .data(argon2::AssociatedData::new(&[4; 12]).unwrap())
        .output_len(32)
        .build()
        .unwrap();
    let mut memory = vec![argon2::Block::default(); params.block_count()];
    let mut tag = [0; 32];
    argon2::Argon2::new_with_secret(
        &[3; 8],
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        params,
    )
    .unwrap()
    .hash_password_into_with_memory(&[1; 32], &[2; 16], &mut tag, &mut memory)
    .unwrap();
    let tag: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        tag,
        "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"
    );
}

#[test]
fn defaults_and_bounds_are_pinned() {
    assert_eq!(
        PasswordParams::default(),
        PasswordParams::new(19 * 1024, 2, 1).unwrap()
    );
    // OWASP's choices, which are equally strong.
    for (mib, passes) in [(46, 1), (19, 2), (12, 3), (9, 4), (7, 5)] {
        PasswordParams::new(mib * 1024, passes, 1).unwrap();
    }
    for (memory, passes, lanes) in [
        (19 * 1024, 1, 1),
        (7 * 1024, 4, 1),
        (6 * 1024, 16, 1),
        (256 * 1024 + 1, 1, 1),
        (19 * 1024, 17, 1),
        (19 * 1024, 0, 1),
        (19 * 1024, 2, 0),
        (19 * 1024, 2, 17),
        (256 * 1024, 5, 1),
        (u32::MAX, u32::MAX, u32::MAX),
    ] {
        let error = PasswordParams::new(memory, passes, lanes).unwrap_err();
        assert!(matches!(error, PasswordError::Params { .. }), "{error}");
    }
    assert!(PasswordParams::insecure_new(7, 1, 1).is_err());
    assert!(PasswordParams::insecure_new(15, 1, 2).is_err());
    PasswordParams::insecure_new(16, 1, 2).unwrap();
}

#[test]
fn hostile_parameters_are_refused_by_the_parser() {
    let with = |params: &str| PasswordHash::parse(KNOWN.replace("m=64,t=1,p=1", params));
    for params in [
        "m=999999,t=1,p=1",
        "m=262145,t=1,p=1",
        "m=64,t=99999,p=1",
        "m=64,t=17,p=1",
        "m=262144,t=5,p=1",
        "m=64,t=1,p=17",
        "m=64,t=1,p=99999",
        "m=64,t=1,p=9",
        "m=7,t=1,p=1",
        "m=64,t=0,p=1",
        "m=64,t=1,p=0",
    ] {
        let error = with(params).unwrap_err();
        assert!(matches!(error, PasswordError::Params { .. }), "{params}: {error}");
    }
    for params in [
        // Exceeds the length of a hash.
        "m=4294967295,t=1,p=1",
        "m=64,t=1,p=4294967295",
        "m=-1,t=1,p=1",
        "m=64,t=1",
        "t=1,p=1",
        "",
        "m=64,t=1,p=1,x=1",
        "m=64,t=1,p=1,keyid=aaaa",
        "m=64,t=1,p=1,data=aaaa",
        "t=1,m=64,p=1",
        "m=064,t=1,p=1",
        "m=64,t=1,p=1,m=65",
    ] {
        let error = with(params).unwrap_err();
        assert!(
            matches!(error, PasswordError::NotAHash { .. }),
            "{params}: {error}"
        );
    }
}

/// Checks all allowed parameters by the lengths of their digits, on which alone the text's length depends.
#[test]
fn the_longest_hash_is_parsed() {
    let mut longest = 0;
    for passes in 1..=PasswordParams::MAX_PASSES {
        for lanes in 1..=PasswordParams::MAX_LANES {
            let most = PasswordParams::MAX_MEMORY_KIB.min(PasswordParams::MAX_WORK / passes);
            let params = PasswordParams::insecure_new(most, passes, lanes).unwrap();
            let hash = PasswordHash::new(known_id(), params, counting(), counting());
            assert_eq!(PasswordHash::parse(hash.as_str()).unwrap(), hash, "{params:?}");
            longest = longest.max(hash.as_str().len());
        }
    }
    assert_eq!(longest, PasswordHash::MAX_LEN);
}

#[test]
fn what_is_no_hash_is_refused() {
    let refused = |text: &str| PasswordHash::parse(text).unwrap_err();
    let changed = |from: &str, to: &str| {
        assert!(KNOWN.contains(from), "{from}");
        refused(&KNOWN.replace(from, to))
    };
    assert_eq!(changed("v=1,", "v=2,"), PasswordError::UnknownVersion);
    assert_eq!(changed("v=1,", "v=11,"), PasswordError::UnknownVersion);
    let phc = KNOWN.find("$argon2id").map(|at| &KNOWN[at..]).unwrap();
    for error in [
        refused(""),
        refused(phc),
        refused("$2b$12$abcdefghijklmnopqrstuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"),
        changed("argon2id", "argon2i"),
        changed("argon2id", "argon2d"),
        changed("argon2id", "scrypt"),
        changed("argon2id", "pbkdf2-sha256"),
        changed("v=19$m", "v=16$m"),
        changed("v=19$m", "v=20$m"),
        changed("v=19$m", "v=4294967295$m"),
        changed("$v=19$m", "$m"),
        // A salt of 8 bytes, of 17 and of 48 (the most that a PHC string has); hashes of 16 bytes, of 33 and of 64.
        changed("AAECAwQFBgcICQoLDA0ODw", "AAECAwQFBgc"),
        changed("AAECAwQFBgcICQoLDA0ODw", "AAECAwQFBgcICQoLDA0ODxA"),
        changed("AAECAwQFBgcICQoLDA0ODw", &"A".repeat(64)),
        changed(
            "ujeJXYe2DK6th2QB2or6RNmBPkvYSQx8UVh+c8Rba3Y",
            "ujeJXYe2DK6th2QB2or6RA",
        ),
        changed("+c8Rba3Y", "+c8Rba3YA"),
        changed("ujeJXYe2DK6th2QB2or6RNmBPkvYSQx8UVh+c8Rba3Y", &"A".repeat(86)),
        changed("01a2053d", "01A2053D"),
        // Not a UUID of version 7.
        changed("-7cc1-", "-4cc1-"),
        changed("7b01-7cc1", "7b017cc1"),
        changed("$AAEC", "$AAEC="),
        changed("ODw$", "ODx$"),
        changed("ODw$", "OD$"),
        changed("a3Y", "a3Z"),
        changed("a3Y", "a3"),
        changed("a3Y", "a3Y="),
        changed("a3Y", "a3Y$"),
        changed("a3Y", "a3Y\n"),
        changed("$ujeJ", ""),
        refused(&format!("{KNOWN}{}", "x".repeat(100_000))),
        refused(&format!(" {KNOWN}")),
        refused("$encx$v=1,k=ééééééééééééééééééééééééééééééééééé"),
    ] {
        assert!(matches!(error, PasswordError::NotAHash { .. }), "{error}");
    }
    for at in 0..KNOWN.len() {
        PasswordHash::parse(&KNOWN[..at]).unwrap_err();
    }
}

#[test]
fn debug_shows_neither_salt_nor_hash() {
    let shown = format!("{:?}", PasswordHash::parse(KNOWN).unwrap());
    assert!(
        shown.contains("01a2053d") && !shown.contains("AAEC") && !shown.contains("uje"),
        "{shown}"
    );
}

/// However many log in at once, hashing takes no more memory than allowed, and never runs on the runtime's own thread.
#[test]
fn work_waits_for_room_and_runs_elsewhere() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let of = PasswordParams::insecure_new(1024, 1, 1).unwrap();
    let workers = Arc::new(Workers::new(&Settings {
        params: of,
        max_memory_mib: Some(2),
    }));
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let here = std::thread::current().id();
    let work = |params: PasswordParams| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        let work = move || {
            assert_ne!(std::thread::current().id(), here);
            let size = params.memory_kib() as usize;
            most.fetch_max(now.fetch_add(size, Ordering::SeqCst) + size, Ordering::SeqCst);
            std::thread::yield_now();
            now.fetch_sub(size, Ordering::SeqCst);
        };
        let workers = Arc::clone(&workers);
        async move { run(&workers, params, work).await }
    };
    let done = runtime.block_on(async {
        let half = PasswordParams::insecure_new(512, 1, 1).unwrap();
        tokio::join!(
            work(of),
            work(of),
            work(of),
            work(of),
            work(half),
            work(half),
            work(half),
            work(half),
            work(of),
            work(of)
        )
    });
    assert!(done.0.is_ok() && done.9.is_ok());
    assert!((1024..=2048).contains(&most.load(Ordering::SeqCst)), "{most:?}");

    // Work that needs more than the whole limit runs alone, and a cancelled caller holds no room.
    let large = PasswordParams::insecure_new(8 * 1024, 1, 1).unwrap();
    runtime.block_on(async {
        let (size, gate) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(std::sync::Barrier::new(2)),
        );
        let held = tokio::spawn({
            let (workers, gate) = (Arc::clone(&workers), Arc::clone(&gate));
            async move {
                run(&workers, large, move || {
                    gate.wait();
                })
                .await
            }
        });
        // Until it has started.
        while workers.free_kib() > 0 {
            tokio::task::yield_now().await;
        }
        drop(run(&workers, of, || ()));
        let waits = run(&workers, of, {
            let size = Arc::clone(&size);
            move || size.fetch_add(1, Ordering::SeqCst)
        });
        let mut waits = Box::pin(waits);
        for _ in 0..10 {
            tokio::select! {
                biased;
                _ = &mut waits => panic!("there was no room"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(size.load(Ordering::SeqCst), 0);
        gate.wait();
        held.await.unwrap().unwrap();
        waits.await.unwrap();
    });
    assert!(matches!(
        futures_now(run(&workers, of, || ())),
        Some(Err(NotDone::NoRuntime))
    ));
}

async fn run<T: Send + 'static>(
    workers: &Workers,
    params: PasswordParams,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NotDone> {
    workers.room(params).await?.run(work).await
}

/// Polls once, outside any runtime.
fn futures_now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(done) => Some(done),
        std::task::Poll::Pending => None,
    }
}
