//! Keys that the key store has lost: deleted rows, and backups restored under a running process.

use encx::keys::{DataKeyId, KeyState};
use encx::password::PasswordVerdict;
use encx::search::IndexField;
use encx::store::{KeyRecord, Revision};
use encx::{Crypto, EncryptionContext, Error, Keyring};
use encx_test_support::{FaultHarness, HOUR, MINUTE, SECOND, SSN, context, open, seal, settle, within};

const BY_SSN: IndexField = IndexField::new("users", "ssn", 64);

/// The part of a context's key that the key store loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Everything,
    Key,
    Revision,
    Wraps,
}

const LOSSES: [Loss; 4] = [Loss::Everything, Loss::Key, Loss::Revision, Loss::Wraps];

impl Loss {
    /// Loses the key `id`, whose first revision was `first`.
    fn befalls(self, harness: &FaultHarness, id: DataKeyId, first: &KeyRecord) {
        harness.rows.tamper(|rows| match self {
            Self::Everything => rows.clear(),
            Self::Key => rows.retain(|row| row.id != id),
            Self::Revision => rows
                .iter_mut()
                .filter(|row| row.id == id)
                .for_each(|row| *row = first.clone()),
            Self::Wraps => rows
                .iter_mut()
                .filter(|row| row.id == id)
                .for_each(|row| row.wraps.clear()),
        });
    }

    /// The version that the store has instead.
    fn found(self, id: DataKeyId) -> Option<DataKeyId> {
        matches!(self, Self::Revision | Self::Wraps).then_some(id)
    }
}

/// A context whose key has changed since it was created, in a process that has used it.
async fn used(harness: &FaultHarness, process: &Crypto, tenant: &str) -> (Keyring, DataKeyId, KeyRecord) {
    let context = context(tenant);
    let id = seal(process, &context).await.key_id();
    let record = |rows: Vec<KeyRecord>| rows.into_iter().find(|row| row.id == id).unwrap();
    let first = record(harness.rows.records());
    harness.suspend_elsewhere(&context).await;
    let manager = harness.elsewhere();
    manager.set_state(&context, id, KeyState::Active).await.unwrap();
    harness.next_poll().await;
    let keyring = process.keyring(&context).await.unwrap();
    keyring.try_encrypt("", SSN.row(1)).unwrap();
    assert!(record(harness.rows.records()).revision > first.revision && first.revision == Revision::FIRST);
    (keyring, id, first)
}

fn assert_rolled_back<T: std::fmt::Debug>(loss: Loss, id: DataKeyId, refused: Result<T, Error>) {
    match refused {
        Err(Error::RolledBack { found, used }) => {
            assert_eq!((found, used), (loss.found(id), id), "{loss:?}");
        }
        other => panic!("{loss:?}: {other:?}"),
    }
}

/// Encrypts in every possible way; each must be refused.
async fn assert_nothing_is_encrypted(process: &Crypto, keyring: &Keyring, loss: Loss, id: DataKeyId) {
    let context = keyring.context();
    let tried = keyring.try_encrypt("", SSN.row(1));
    assert!(matches!(tried, Err(Error::NotReady)), "{loss:?}: {tried:?}");
    assert_rolled_back(loss, id, within(keyring.encrypt("", SSN.row(1))).await);
    assert_rolled_back(loss, id, within(process.encrypt(&context, "", SSN.row(1))).await);
    let mut buffer = Vec::new();
    assert_rolled_back(
        loss,
        id,
        within(keyring.encrypt_into("", SSN.row(1), &mut buffer)).await,
    );
    for refused in within(keyring.encrypt_many([("", SSN.row(1)), ("", SSN.row(2))])).await {
        assert_rolled_back(loss, id, refused);
    }
    for refused in within(process.encrypt_many([(&context, "", SSN.row(1))])).await {
        assert_rolled_back(loss, id, refused);
    }
    assert_rolled_back(loss, id, within(process.keyring(&context)).await);
    let warmed = within(process.warm_up([&context])).await;
    assert_eq!((warmed.loaded, warmed.without_keys), (0, 0));
    assert_rolled_back(loss, id, Err::<(), _>(warmed.failed[0].error.clone()));
}

#[tokio::test]
async fn what_is_lost_encrypts_no_more_within_state_ttl_and_nothing_is_made_in_its_place() {
    for loss in LOSSES {
        let harness = FaultHarness::new();
        let process = harness.process().await;
        let (keyring, id, first) = used(&harness, &process, "a").await;
        let other = seal(&process, &context("b")).await;
        let made = harness.kms.calls().generate;
        loss.befalls(&harness, id, &first);
        let rows = harness.rows.records();
        harness.pass(MINUTE).await;
        assert_nothing_is_encrypted(&process, &keyring, loss, id).await;
        if loss != Loss::Everything {
            // The other tenants' keys are unaffected.
            open(&process, &context("b"), &other).await.unwrap();
            seal(&process, &context("b")).await;
        }
        // It does not recover with time.
        for _ in 0..3 {
            harness.clock.advance(HOUR);
            settle().await;
            assert_nothing_is_encrypted(&process, &keyring, loss, id).await;
        }
        assert_eq!(harness.kms.calls().generate, made, "{loss:?}");
        assert_eq!(harness.rows.records(), rows, "{loss:?}");
    }
}

#[tokio::test]
async fn what_was_lost_does_not_decrypt_as_if_it_were_there() {
    for loss in LOSSES {
        let harness = FaultHarness::new();
        let process = harness.process().await;
        let (keyring, id, first) = used(&harness, &process, "a").await;
        let sealed = keyring.encrypt("x", SSN.row(1)).await.unwrap();
        loss.befalls(&harness, id, &first);
        harness.pass(MINUTE).await;
        let opened = open(&process, &context("a"), &sealed).await;
        match loss {
            // The key exists.
            Loss::Revision => assert_eq!(opened.unwrap().as_bytes(), b"x"),
            _ => assert_rolled_back(loss, id, opened),
        }
    }
}

#[tokio::test]
async fn indexes_and_passwords_are_refused_likewise() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let index = async || process.blind_index(&context, &BY_SSN, "1").await;
    let terms = async || process.index_terms(&context, &BY_SSN, "1").await;
    let hash = async || process.hash_password(&context, "secret", SSN.row(1)).await;
    let no_user = async || process.verify_nobody(&context, "secret").await;
    index().await.unwrap();
    assert_eq!(terms().await.unwrap().len(), 1);
    let hashed = hash().await.unwrap();
    assert_eq!(no_user().await.unwrap(), PasswordVerdict::NoMatch);
    let made = harness.kms.calls().generate;
    harness.rows.tamper(Vec::clear);
    harness.pass(MINUTE).await;
    for later in [SECOND, 3 * HOUR] {
        harness.clock.advance(later);
        settle().await;
        let is_refused = |error: Option<Error>| matches!(error, Some(Error::RolledBack { found: None, .. }));
        assert!(is_refused(index().await.err()));
        // An empty search result would look like a complete one.
        assert!(is_refused(terms().await.err()));
        assert!(is_refused(hash().await.err()));
        let verified = process
            .verify_password(&context, &hashed, "secret", SSN.row(1))
            .await;
        assert!(is_refused(verified.err()));
        assert!(
            is_refused(no_user().await.err()),
            "the error does not tell who exists"
        );
    }
    assert_eq!(harness.kms.calls().generate, made);
}

#[tokio::test]
async fn rows_that_are_put_back_serve_again() {
    for loss in LOSSES {
        let harness = FaultHarness::new();
        let process = harness.process().await;
        let (keyring, id, first) = used(&harness, &process, "a").await;
        let sealed = keyring.encrypt("x", SSN.row(1)).await.unwrap();
        let before = harness.rows.records();
        loss.befalls(&harness, id, &first);
        harness.pass(MINUTE).await;
        assert_nothing_is_encrypted(&process, &keyring, loss, id).await;
        harness.rows.tamper(|rows| *rows = before);
        harness.pass(MINUTE + SECOND).await;
        assert_eq!(seal(&process, &context("a")).await.key_id(), id, "{loss:?}");
        open(&process, &context("a"), &sealed).await.unwrap();
    }
}

#[tokio::test]
async fn a_new_version_that_is_asked_for_is_the_way_on() {
    for loss in LOSSES {
        let harness = FaultHarness::new();
        let process = harness.process().await;
        let (keyring, id, first) = used(&harness, &process, "a").await;
        loss.befalls(&harness, id, &first);
        harness.pass(MINUTE).await;
        assert_nothing_is_encrypted(&process, &keyring, loss, id).await;
        let (manager, context) = (harness.elsewhere(), context("a"));
        let next = match loss.found(id) {
            Some(_) => manager.rotate(&context).await.unwrap(),
            None => manager.create(&context).await.unwrap(),
        };
        harness.pass(MINUTE + SECOND).await;
        assert_eq!(seal(&process, &context).await.key_id(), next.id, "{loss:?}");
    }
}

/// More contexts than cache entries: the last used version is remembered for evicted ones too.
#[tokio::test]
async fn a_context_that_was_pushed_out_of_memory_is_not_restarted() {
    let harness = FaultHarness::new();
    let process = harness.built(harness.builder().max_keyrings(8)).await;
    let tenants: Vec<EncryptionContext> = (0..12).map(context).collect();
    for tenant in &tenants {
        seal(&process, tenant).await;
    }
    assert!(process.stats().keyrings <= 8);
    let made = harness.kms.calls().generate;
    harness.rows.tamper(Vec::clear);
    harness.pass(MINUTE).await;
    for tenant in &tenants {
        let refused = within(process.encrypt(tenant, "", SSN.row(1))).await;
        assert!(
            matches!(refused, Err(Error::RolledBack { found: None, .. })),
            "{refused:?}"
        );
    }
    assert_eq!(harness.kms.calls().generate, made);
}

/// Of two concurrent reads, the one that began later may have seen less.
#[tokio::test]
async fn a_read_that_was_overtaken_is_no_loss() {
    let harness = FaultHarness::new();
    let elsewhere = harness.elsewhere();
    for tenant in ["a", "b"] {
        elsewhere.create(&context(tenant)).await.unwrap();
    }
    let process = harness.process().await;
    // It has started but not read.
    harness.store.wide_loads.hold();
    let of = process.clone();
    let warming = tokio::spawn(async move { of.warm_up([context("a"), context("b")]).await });
    harness.store.wide_loads.until_waiting(1).await;
    // It starts later, has read, and is held before it returns.
    harness.store.loads.hold();
    let of = process.clone();
    let encrypting = tokio::spawn(async move { of.encrypt(&context("a"), "", SSN.row(1)).await });
    harness.store.loads.until_waiting(1).await;
    let next = elsewhere.rotate(&context("a")).await.unwrap();
    harness.store.wide_loads.release();
    assert_eq!(within(warming).await.unwrap().loaded, 2);
    assert_eq!(seal(&process, &context("a")).await.key_id(), next.id);
    harness.store.loads.release();
    assert_eq!(within(encrypting).await.unwrap().unwrap().key_id(), next.id);
    settle().await;
    assert_eq!(seal(&process, &context("a")).await.key_id(), next.id);
}
