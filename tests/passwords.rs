//! Passwords: bound to their place, peppered by a key of the KMS, verified off the runtime's threads.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use encx::keys::{KeyManager, KeyState, KeyUsage};
use encx::password::{PasswordError, PasswordHash, PasswordParams, PasswordVerdict};
use encx::{Aad, Crypto, EncryptionContext, Error, Field};
use encx_test_support::HarnessExt;
use encx_testkit::{Harness, block_on};

const PASSWORD: Field = Field::new("users", "password");
const RIGHT: &str = "correct horse battery staple";
const MATCH: PasswordVerdict = PasswordVerdict::Match { needs_rehash: false };
const OUTDATED: PasswordVerdict = PasswordVerdict::Match { needs_rehash: true };

fn login() -> EncryptionContext {
    purpose("login")
}

fn purpose(purpose: &str) -> EncryptionContext {
    EncryptionContext::from_pairs([("purpose", purpose)]).unwrap()
}

/// The cheapest parameters, to keep the tests fast.
fn cheap() -> PasswordParams {
    PasswordParams::insecure_new(64, 1, 1).unwrap()
}

/// Starts a harness whose processes all hash with the cheapest parameters.
async fn harness() -> Harness {
    Harness::with(|settings| settings.password_params(cheap())).await
}

fn keys(crypto: &Crypto) -> KeyManager {
    crypto.key_manager().for_usage(KeyUsage::Pepper)
}

async fn hash(crypto: &Crypto) -> PasswordHash {
    crypto
        .hash_password(&login(), RIGHT, PASSWORD.row(7))
        .await
        .unwrap()
}

async fn verify(crypto: &Crypto, hash: &PasswordHash, password: &str) -> PasswordVerdict {
    crypto
        .verify_password(&login(), hash, password, PASSWORD.row(7))
        .await
        .unwrap()
}

#[test]
fn another_process_verifies_the_right_password_alone() {
    block_on(async {
        let harness = harness().await;
        let (crypto, other) = (harness.process().await, harness.process().await);
        let stored = hash(&crypto).await;
        for process in [&crypto, &other] {
            assert_eq!(verify(process, &stored, RIGHT).await, MATCH);
            for wrong in [
                "correct horse",
                "",
                "Correct horse battery staple",
                &"x".repeat(5000),
            ] {
                assert_eq!(verify(process, &stored, wrong).await, PasswordVerdict::NoMatch);
            }
        }
        // Salts differ, and both hashes verify.
        let again = hash(&crypto).await;
        assert_ne!(stored, again);
        assert_eq!(verify(&other, &again, RIGHT).await, MATCH);
        assert!(MATCH.is_match() && !PasswordVerdict::NoMatch.is_match());
        assert!(OUTDATED.is_match() && OUTDATED.needs_rehash() && !MATCH.needs_rehash());
    });
}

#[test]
fn a_hash_in_another_place_does_not_verify() {
    block_on(async {
        let crypto = harness().await.process().await;
        let stored = hash(&crypto).await;
        for place in [
            PASSWORD.row(8),
            PASSWORD.row("7"),
            Field::new("users", "pin").row(7),
            Field::new("admins", "password").row(7),
            Aad::unbound(),
        ] {
            let verdict = crypto
                .verify_password(&login(), &stored, RIGHT, place)
                .await
                .unwrap();
            assert_eq!(verdict, PasswordVerdict::NoMatch);
        }
        // The pepper of another context has a different id.
        let admin = purpose("admin");
        let place = PASSWORD.row(7);
        let error = crypto
            .verify_password(&admin, &stored, RIGHT, &place)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::UnknownKey { .. }), "{error}");
        crypto.hash_password(&admin, RIGHT, &place).await.unwrap();
        let error = crypto
            .verify_password(&admin, &stored, RIGHT, &place)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::UnknownKey { .. }), "{error}");
    });
}

/// A changed stored hash does not verify: each part is an input of Argon2 or names the pepper.
#[test]
fn a_changed_hash_does_not_verify() {
    block_on(async {
        let harness = harness().await;
        let crypto = harness.process().await;
        let stored = hash(&crypto).await;
        let text = stored.as_str();
        let mut parsed = 0;
        for (at, old) in text.char_indices() {
            for new in ['0', '1', '2', '4', '8', 'a', 'A', 'Q'] {
                let mut changed = text.to_owned();
                changed.replace_range(at..=at, &new.to_string());
                if new == old || PasswordHash::parse(&changed).is_err() {
                    continue;
                }
                parsed += 1;
                let changed = PasswordHash::parse(&changed).unwrap();
                match crypto
                    .verify_password(&login(), &changed, RIGHT, PASSWORD.row(7))
                    .await
                {
                    Ok(verdict) => assert_eq!(verdict, PasswordVerdict::NoMatch, "{at} {new}"),
                    Err(error) => assert!(matches!(error, Error::UnknownKey { .. }), "{error}"),
                }
            }
        }
        assert!(parsed > 100, "{parsed}");
    });
}

#[test]
fn a_password_needs_a_new_hash_after_a_rotation_and_with_other_parameters() {
    block_on(async {
        let harness = harness().await;
        let crypto = harness.process().await;
        let stored = hash(&crypto).await;
        keys(&crypto).rotate(&login()).await.unwrap();
        assert_eq!(verify(&crypto, &stored, RIGHT).await, OUTDATED);
        assert_eq!(verify(&crypto, &stored, "wrong").await, PasswordVerdict::NoMatch);
        let rehashed = hash(&crypto).await;
        assert_ne!(rehashed.key_id(), stored.key_id());
        assert_eq!(verify(&crypto, &rehashed, RIGHT).await, MATCH);

        let stronger = PasswordParams::insecure_new(128, 1, 1).unwrap();
        let later = harness.builder().password_params(stronger).build().await.unwrap();
        assert_eq!(verify(&later, &rehashed, RIGHT).await, OUTDATED);
        assert_eq!(hash(&later).await.params(), stronger);
        // A hash that is stronger than the current parameters is outdated too: the parameters are the same for all.
        assert_eq!(verify(&crypto, &hash(&later).await, RIGHT).await, OUTDATED);
    });
}

#[test]
fn the_peppers_state_decides() {
    block_on(async {
        let harness = harness().await;
        let crypto = harness.process().await;
        let stored = hash(&crypto).await;
        let attempt = async || {
            crypto
                .verify_password(&login(), &stored, RIGHT, PASSWORD.row(7))
                .await
        };
        let pepper = stored.key_id();
        keys(&crypto)
            .set_state(&login(), pepper, KeyState::Suspended)
            .await
            .unwrap();
        assert!(matches!(attempt().await, Err(Error::Suspended { .. })));
        let new = crypto.hash_password(&login(), RIGHT, PASSWORD.row(7)).await;
        assert!(matches!(new, Err(Error::NoActiveKey)));
        keys(&crypto)
            .set_state(&login(), pepper, KeyState::Active)
            .await
            .unwrap();
        assert_eq!(attempt().await.unwrap(), MATCH);
        keys(&crypto)
            .set_state(&login(), pepper, KeyState::Compromised)
            .await
            .unwrap();
        assert!(matches!(attempt().await, Err(Error::Compromised { .. })));
        keys(&crypto)
            .destroy_with_data(&login(), pepper, "a test")
            .await
            .unwrap();
        assert!(matches!(
            attempt().await,
            Err(Error::Shredded | Error::Destroyed { .. })
        ));
    });
}

#[test]
fn an_imported_pepper_is_used_and_rotates_like_any() {
    block_on(async {
        let harness = harness().await;
        let (crypto, other) = (harness.process().await, harness.process().await);
        let pepper = |byte| encx::kms::DataKey::copy_from(&[byte; 32]).unwrap();
        let record = keys(&crypto).import(&login(), pepper(7)).await.unwrap();
        let stored = hash(&crypto).await;
        assert_eq!(stored.key_id(), record.id);
        assert_eq!(verify(&other, &stored, RIGHT).await, MATCH);
        // The KMS wrapped it, and the store keeps no key.
        let [wrap] = &*record.wraps else {
            panic!("{record:?}");
        };
        let kept = &wrap.wrapped.ciphertext;
        assert!(!kept.windows(32).any(|part| part == [7; 32]));
        assert_eq!(keys(&crypto).list(&login()).await.unwrap().len(), 1);

        // A pepper that is created here replaces it, and then another imported one.
        keys(&crypto).rotate(&login()).await.unwrap();
        assert_eq!(verify(&crypto, &stored, RIGHT).await, OUTDATED);
        let made_here = hash(&crypto).await;
        assert_eq!(verify(&crypto, &made_here, RIGHT).await, MATCH);
        keys(&crypto).import(&login(), pepper(8)).await.unwrap();
        let rehashed = hash(&crypto).await;
        for (hash, verdict) in [(&stored, OUTDATED), (&made_here, OUTDATED), (&rehashed, MATCH)] {
            assert_eq!(verify(&crypto, hash, RIGHT).await, verdict);
            assert_eq!(verify(&crypto, hash, "wrong").await, PasswordVerdict::NoMatch);
        }
        // In another process too.
        assert_eq!(verify(&harness.process().await, &stored, RIGHT).await, OUTDATED);
    });
}

#[test]
fn an_unknown_user_is_verified_in_vain_and_has_no_key_made() {
    block_on(async {
        let harness = harness().await;
        let crypto = harness.process().await;
        let no_user = async |password: &str| crypto.verify_nobody(&login(), password).await.unwrap();
        assert_eq!(no_user(RIGHT).await, PasswordVerdict::NoMatch);
        assert_eq!(no_user("").await, PasswordVerdict::NoMatch);
        assert!(keys(&crypto).list(&login()).await.unwrap().is_empty());
        hash(&crypto).await;
        assert_eq!(no_user(RIGHT).await, PasswordVerdict::NoMatch);
    });
}

#[test]
fn passwords_that_are_none_are_refused() {
    block_on(async {
        let crypto = harness().await.process().await;
        let attempt = async |password: &str| {
            crypto
                .hash_password(&login(), password, PASSWORD.row(7))
                .await
                .unwrap_err()
        };
        assert!(matches!(attempt("").await, Error::Password(PasswordError::Empty)));
        let error = attempt(&"x".repeat(4097)).await;
        assert!(matches!(
            error,
            Error::Password(PasswordError::TooLong { found: 4097 })
        ));
        let error = crypto
            .hash_password(&login(), RIGHT, PASSWORD.row(""))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Aad(_)), "{error}");
        assert_eq!(crypto.stats().kms_calls, 0);
    });
}

/// Otherwise the error would reveal which users exist.
#[test]
fn an_unknown_user_fails_as_every_user_does() {
    block_on(async {
        let crypto = harness().await.process().await;
        let stored = hash(&crypto).await;
        let keys = keys(&crypto);
        let attempts = async || {
            let known = crypto
                .verify_password(&login(), &stored, "wrong", PASSWORD.row(7))
                .await
                .map_err(|error| error.to_string());
            let unknown = crypto.verify_nobody(&login(), "wrong").await;
            (known, unknown.map_err(|error| error.to_string()))
        };
        for state in [KeyState::Suspended, KeyState::Compromised] {
            keys.set_state(&login(), stored.key_id(), state).await.unwrap();
            let (known, unknown) = attempts().await;
            assert!(known.is_err(), "{known:?}");
            assert_eq!(known, unknown);
            // A pepper that was never active verifies no unknown user either.
            keys.prepare(&login()).await.unwrap();
            assert_eq!(attempts().await, (known, unknown));
        }
        // An older pepper still verifies: known and unknown users get verdicts.
        let other = harness().await.process().await;
        let stored = hash(&other).await;
        let manager = self::keys(&other);
        let newest = manager.rotate(&login()).await.unwrap();
        manager
            .set_state(&login(), newest.id, KeyState::Suspended)
            .await
            .unwrap();
        assert_eq!(verify(&other, &stored, "wrong").await, PasswordVerdict::NoMatch);
        let unknown = other.verify_nobody(&login(), "wrong").await.unwrap();
        assert_eq!(unknown, PasswordVerdict::NoMatch);
    });
}

/// With one blocking thread, which is busy, and memory for one password.
#[test]
fn a_pepper_withdrawn_while_a_password_waits_for_room_is_not_used() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let harness = harness().await;
        let stored = hash(&harness.process().await).await;
        let crypto = harness
            .builder()
            .password_params(cheap())
            .max_password_memory_mib(0)
            .build()
            .await
            .unwrap();
        assert!(!verify(&crypto, &stored, "wrong").await.is_match());
        let (release, held) = std::sync::mpsc::channel::<()>();
        let thread = tokio::task::spawn_blocking(move || held.recv());
        let attempt = |work: u8| {
            let (crypto, stored) = (crypto.clone(), stored.clone());
            tokio::spawn(async move {
                match work {
                    0 => crypto
                        .hash_password(&login(), RIGHT, PASSWORD.row(7))
                        .await
                        .map(drop),
                    1 => crypto
                        .verify_password(&login(), &stored, RIGHT, PASSWORD.row(7))
                        .await
                        .map(drop),
                    _ => crypto.verify_nobody(&login(), RIGHT).await.map(drop),
                }
            })
        };
        // It has the memory, and its computation continues.
        let first = attempt(1);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let waiting: Vec<_> = (0..3).map(attempt).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        keys(&crypto)
            .set_state(&login(), stored.key_id(), KeyState::Suspended)
            .await
            .unwrap();
        release.send(()).unwrap();
        thread.await.unwrap().unwrap();
        first.await.unwrap().unwrap();
        for (work, waiting) in waiting.into_iter().enumerate() {
            let refused = waiting.await.unwrap();
            assert!(
                matches!(refused, Err(Error::NoActiveKey | Error::Suspended { .. })),
                "{work}: {refused:?}"
            );
        }
    });
}
