//! After a shredding nothing of the context is readable, and the receipt says what is known.

use std::time::Duration;

use encx::keys::{KeyState, KeyUsage, ShredReceipt};
use encx::kms::DataKey;
use encx::search::IndexField;
use encx::store::{KeyRecord, StoreError};
use encx::{Crypto, EncryptionContext, Error};
use encx_test_support::{FaultHarness, HOUR, MINUTE, SECOND, context, open, seal, settle, within};
use tokio::task::JoinHandle;

use super::{drive, other_process, tool};

async fn shred(harness: &FaultHarness, process: &Crypto, context: &EncryptionContext) -> ShredReceipt {
    let manager = process.key_manager();
    drive(harness, SECOND / 40, manager.shred(context, MINUTE))
        .await
        .unwrap()
}

/// Returns the rows of keys, without the tombstones.
fn keys(harness: &FaultHarness) -> Vec<KeyRecord> {
    let mut records = harness.rows.records();
    records.retain(|record| !record.is_tombstone());
    records
}

/// Checks that no usage has a key that can be unwrapped, and that each has a row against which a first use loses its
/// race.
fn assert_buried(harness: &FaultHarness) {
    let records = harness.rows.records();
    for usage in KeyUsage::ALL {
        assert!(
            records.iter().any(|record| record.usage == usage),
            "{usage}: {records:#?}"
        );
    }
    for record in records {
        assert_eq!(record.state, KeyState::Destroyed, "{record:#?}");
        assert_eq!(record.wraps, []);
    }
}

async fn assert_shredded(process: &Crypto, context: &EncryptionContext, sealed: &encx::Ciphertext) {
    let refused = open(process, context, sealed).await;
    assert!(matches!(refused, Err(Error::Shredded)), "{refused:?}");
    let refused = within(process.encrypt(context, "x", encx_test_support::SSN.row(1))).await;
    assert!(matches!(refused, Err(Error::Shredded)), "{refused:?}");
    let refused = process.needs_reencryption(context, sealed).await;
    assert!(matches!(refused, Err(Error::Shredded)), "{refused:?}");
}

#[tokio::test]
async fn nothing_reads_in_any_process_afterwards() {
    for hints in [true, false] {
        let harness = if hints {
            FaultHarness::with_hints()
        } else {
            FaultHarness::new()
        }
        .with_registry();
        let process = harness.process().await;
        let other = harness.built(harness.builder().process_name("other")).await;
        let (a, b) = (context("a"), context("b"));
        let (sealed, kept) = (seal(&process, &a).await, seal(&process, &b).await);
        for sealed in [(&a, &sealed), (&b, &kept)] {
            open(&other, sealed.0, sealed.1).await.unwrap();
        }
        let receipt = shred(&harness, &process, &a).await;
        assert!(receipt.is_complete(), "{receipt:?}");
        let processes = receipt.processes.as_ref().unwrap();
        assert_eq!(processes.acknowledged.len(), 2);
        assert_eq!(receipt.context, a);
        assert_eq!(receipt.versions.len(), 1);
        assert_eq!(
            (receipt.versions[0].id, receipt.versions[0].destroyed_at),
            (sealed.key_id(), receipt.at)
        );
        for process in [&process, &other] {
            assert_eq!(process.stats().keys, 1, "only the other tenant's");
            let keyring = process.keyring(&a).await;
            assert!(keyring.is_err() || process.stats().keys == 1);
            assert_shredded(process, &a, &sealed).await;
            open(process, &b, &kept).await.unwrap();
        }
        // Shredding again gives the same receipt.
        let again = shred(&harness, &process, &a).await;
        assert_eq!(again.versions, receipt.versions);
        // Only `revive` allows new keys.
        let manager = process.key_manager();
        assert!(matches!(manager.rotate(&a).await, Err(Error::Shredded)));
        assert!(matches!(manager.prepare(&a).await, Err(Error::Shredded)));
        manager.revive(&a).await.unwrap();
        let revived = seal(&process, &a).await;
        open(&process, &a, &revived).await.unwrap();
        let refused = open(&process, &a, &sealed).await;
        assert!(matches!(refused, Err(Error::Destroyed { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn every_usage_and_every_state_is_destroyed() {
    let harness = FaultHarness::with_hints().with_registry();
    let (process, context) = (harness.process().await, context("a"));
    let mut made = Vec::new();
    for usage in KeyUsage::ALL {
        let manager = process.key_manager().for_usage(usage);
        made.push(manager.create(&context).await.unwrap().id);
    }
    let manager = process.key_manager().because("tenant left");
    // Deactivated, compromised, suspended from deactivated, suspended from pre-active, active, pre-active.
    for state in [KeyState::Deactivated, KeyState::Compromised, KeyState::Suspended] {
        let active = manager.list(&context).await.unwrap().pop().unwrap();
        manager.rotate(&context).await.unwrap();
        if state != KeyState::Deactivated {
            manager.set_state(&context, active.id, state).await.unwrap();
        }
    }
    let published = manager.prepare(&context).await.unwrap();
    manager
        .set_state(&context, published.id, KeyState::Suspended)
        .await
        .unwrap();
    manager.prepare(&context).await.unwrap();
    let before = harness.rows.records();
    assert_eq!(before.len(), 9);
    let receipt = shred(&harness, &process, &context).await;
    let mut ids: Vec<_> = before.iter().map(|record| record.id).collect();
    ids.sort();
    let destroyed: Vec<_> = receipt.versions.iter().map(|version| version.id).collect();
    assert_eq!(destroyed, ids);
    for record in harness.rows.records() {
        assert_eq!(record.state, KeyState::Destroyed);
        assert!(record.wraps.is_empty() && record.destroyed_at.is_some());
    }
    let usages: Vec<_> = receipt.versions.iter().map(|version| version.usage).collect();
    assert!(KeyUsage::ALL.iter().all(|usage| usages.contains(usage)));
    assert_eq!(process.stats().keys, 0);
}

/// A concurrent rotation must not bring the context back.
#[tokio::test]
async fn a_rotation_under_way_does_not_outlive_it() {
    let harness = FaultHarness::with_hints().with_registry();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    harness.kms.hold();
    let rotating = tokio::spawn({
        let (manager, context) = (tool(&harness), context.clone());
        async move { manager.rotate(&context).await }
    });
    within(harness.kms.until_in_flight(1)).await;
    let receipt = shred(&harness, &process, &context).await;
    assert!(receipt.is_complete(), "{receipt:?}");
    harness.kms.release();
    let rotated = within(rotating).await.unwrap();
    assert!(matches!(rotated, Err(Error::Shredded)), "{rotated:?}");
    assert_eq!(keys(&harness).len(), 1);
    assert_shredded(&process, &context, &sealed).await;
}

/// A version that is published, promoted or suspended while its scope is shredded.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_others_do_at_once_survives_it() {
    for _ in 0..20 {
        let harness = FaultHarness::with_hints().with_registry();
        let context = context("a");
        tool(&harness).create(&context).await.unwrap();
        let mut others = tokio::task::JoinSet::new();
        for number in 0..4 {
            let (manager, context) = (tool(&harness), context.clone());
            others.spawn(async move {
                for _ in 0..10 {
                    let done = match number {
                        0 | 1 => manager.rotate(&context).await.map(drop),
                        2 => manager.prepare(&context).await.map(drop),
                        _ => match manager.list(&context).await.unwrap().pop() {
                            Some(last) => manager
                                .set_state(&context, last.id, KeyState::Suspended)
                                .await
                                .map(drop),
                            None => Ok(()),
                        },
                    };
                    drop(done);
                    tokio::task::yield_now().await;
                }
            });
        }
        let receipt = tool(&harness).shred(&context, Duration::ZERO).await.unwrap();
        others.join_all().await;
        let records = keys(&harness);
        assert!(
            records.iter().all(|record| record.state == KeyState::Destroyed),
            "{records:?}"
        );
        assert_eq!(receipt.versions.len(), records.len());
    }
}

#[tokio::test]
async fn who_does_not_answer_is_told_with_the_latest_moment() {
    let harness = FaultHarness::with_hints().with_registry();
    let builder = harness
        .builder()
        .process_name("cut off")
        .stale_decrypt_if_unavailable(HOUR);
    let cut_off = harness.built(builder).await;
    let sealed = seal(&cut_off, &context("a")).await;
    let process = other_process(&harness).await;
    open(&process, &context("a"), &sealed).await.unwrap();
    harness.store.set_down(true);
    let receipt = shred(&harness, &process, &context("a")).await;
    assert!(!receipt.is_complete());
    let processes = receipt.processes.as_ref().unwrap();
    assert_eq!(processes.silent.len(), 1);
    assert_eq!(processes.silent[0].process.name, "cut off");
    assert_eq!(processes.serves_until(), Some(processes.at.plus(2 * HOUR)));
    assert_shredded(&process, &context("a"), &sealed).await;
    // It can read as long as it cannot know better, but not beyond the time in the receipt.
    open(&cut_off, &context("a"), &sealed).await.unwrap();
    harness.kms.set_unavailable(true);
    harness.pass(2 * HOUR).await;
    open(&cut_off, &context("a"), &sealed).await.unwrap_err();
}

#[tokio::test]
async fn without_a_registry_the_receipt_says_so() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    let receipt = process.key_manager().shred(&context, MINUTE).await.unwrap();
    assert!(!receipt.is_complete());
    assert!(
        matches!(
            receipt.processes,
            Err(Error::Store(StoreError::Unsupported { .. }))
        ),
        "{receipt:?}"
    );
    assert_shredded(&process, &context, &sealed).await;
    let none = process
        .key_manager()
        .shred(&encx_test_support::context("unknown"), MINUTE)
        .await;
    assert!(matches!(none, Err(Error::NoKeys)), "{none:?}");
    settle().await;
}

const EMAIL: IndexField = IndexField::new("users", "email", 64);

/// An operation that creates a key, and reports whether it did.
type Begin = fn(Crypto, EncryptionContext) -> JoinHandle<Result<(), Error>>;

/// All operations that create a key, for a usage that had none or one, by name.
const MAKERS: [(&str, Begin); 7] = [
    ("the first blind index", |process, context| {
        tokio::spawn(async move { process.blind_index(&context, &EMAIL, "ada").await.map(drop) })
    }),
    ("the first password", |process, context| {
        tokio::spawn(async move {
            let hash = process.hash_password(&context, "correct horse", encx_test_support::SSN.row(1));
            hash.await.map(drop)
        })
    }),
    ("create", |process, context| {
        let manager = process.key_manager().for_usage(KeyUsage::Stream);
        tokio::spawn(async move { manager.create(&context).await.map(drop) })
    }),
    ("import of a first version", |process, context| {
        let manager = process.key_manager().for_usage(KeyUsage::Pepper);
        let key = DataKey::copy_from(&[7; 32]).unwrap();
        tokio::spawn(async move { manager.import(&context, key).await.map(drop) })
    }),
    ("import of a further version", |process, context| {
        let key = DataKey::copy_from(&[7; 32]).unwrap();
        tokio::spawn(async move { process.key_manager().import(&context, key).await.map(drop) })
    }),
    ("prepare", |process, context| {
        tokio::spawn(async move { process.key_manager().prepare(&context).await.map(drop) })
    }),
    ("rotate", |process, context| {
        tokio::spawn(async move { process.key_manager().rotate(&context).await.map(drop) })
    }),
];

/// The KMS is called before a shredding begins, and answers after its receipt is complete.
#[tokio::test]
async fn nothing_that_was_under_way_makes_a_key() {
    for (name, begin) in MAKERS {
        let harness = FaultHarness::with_hints().with_registry();
        let (process, context) = (harness.process().await, context("a"));
        let sealed = seal(&process, &context).await;
        harness.kms.hold();
        let under_way = begin(process.clone(), context.clone());
        within(harness.kms.until_in_flight(1)).await;
        let other = other_process(&harness).await;
        let receipt = shred(&harness, &other, &context).await;
        assert!(receipt.is_complete(), "{name}: {receipt:?}");
        assert_eq!(receipt.versions.len(), 1, "{name}: tombstones are no versions");
        harness.kms.release();
        let made = within(under_way).await.unwrap();
        assert!(matches!(made, Err(Error::Shredded)), "{name}: {made:?}");
        settle().await;
        assert_buried(&harness);
        assert_eq!(keys(&harness).len(), 1, "{name}");
        for process in [&process, &other, &harness.process().await] {
            let refused = within(process.blind_index(&context, &EMAIL, "bob")).await;
            assert!(matches!(refused, Err(Error::Shredded)), "{name}: {refused:?}");
            assert_shredded(process, &context, &sealed).await;
        }
        let again = shred(&harness, &other, &context).await;
        assert_eq!(again.versions, receipt.versions, "{name}");
    }
}

/// The reverse order: the key is in its row before the tombstone, so it is destroyed and in the receipt.
#[tokio::test]
async fn a_first_use_that_is_faster_stands_in_the_receipt() {
    let harness = FaultHarness::with_hints().with_registry();
    let (process, context) = (harness.process().await, context("a"));
    seal(&process, &context).await;
    // The insert is complete, but its process does not know it yet.
    harness.store.inserts.hold();
    let first_use = MAKERS[0].1(process.clone(), context.clone());
    harness.store.inserts.until_waiting(1).await;
    let other = other_process(&harness).await;
    let receipt = shred(&harness, &other, &context).await;
    let mut usages: Vec<_> = receipt.versions.iter().map(|version| version.usage).collect();
    usages.sort_unstable();
    assert_eq!(usages, [KeyUsage::Data, KeyUsage::Index]);
    assert_buried(&harness);
    harness.store.inserts.release();
    let _ = within(first_use).await.unwrap();
    let refused = within(process.blind_index(&context, &EMAIL, "bob")).await;
    assert!(matches!(refused, Err(Error::Shredded)), "{refused:?}");
}

/// A receipt states the rows after every process acknowledged, not before.
#[tokio::test]
async fn a_receipt_is_read_after_the_fence() {
    let harness = FaultHarness::with_hints().with_registry();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    // The process does not acknowledge yet.
    harness.store.polls.hold();
    let shredding = tokio::spawn({
        let (manager, context) = (tool(&harness), context.clone());
        async move { manager.shred(&context, MINUTE).await }
    });
    let buried = || harness.rows.records().len() == KeyUsage::ALL.len();
    encx_test_support::until("the tombstones", buried).await;
    let revived = tool(&harness).revive(&context).await.unwrap();
    harness.store.polls.release();
    let receipt = drive(&harness, SECOND / 40, shredding).await.unwrap().unwrap();
    assert!(receipt.is_complete(), "{receipt:?}");
    let ids: Vec<_> = receipt.versions.iter().map(|version| version.id).collect();
    assert_eq!(ids, [sealed.key_id(), revived.id]);
    assert_buried(&harness);
    assert_shredded(&process, &context, &sealed).await;
}

#[tokio::test]
async fn a_usage_that_had_no_key_does_not_begin_by_itself() {
    let harness = FaultHarness::with_hints().with_registry();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    assert!(shred(&harness, &process, &context).await.is_complete());
    let refused = within(process.blind_index(&context, &EMAIL, "ada")).await;
    assert!(matches!(refused, Err(Error::Shredded)), "{refused:?}");
    let indexes = process.key_manager().for_usage(KeyUsage::Index);
    let refused = indexes.create(&context).await;
    assert!(matches!(refused, Err(Error::Shredded)), "{refused:?}");
    let listed = indexes.list(&context).await.unwrap();
    assert!(listed.len() == 1 && listed[0].is_tombstone(), "{listed:?}");
    // It is revived like those that had a key, separately.
    let revived = indexes.revive(&context).await.unwrap();
    assert_eq!((revived.version.get(), revived.state), (2, KeyState::Active));
    within(process.blind_index(&context, &EMAIL, "ada"))
        .await
        .unwrap();
    assert_shredded(&process, &context, &sealed).await;
    let hash = process.hash_password(&context, "correct horse", encx_test_support::SSN.row(1));
    let refused = within(hash).await;
    assert!(matches!(refused, Err(Error::Shredded)), "{refused:?}");
    let never = indexes.revive(&encx_test_support::context("unknown")).await;
    assert!(matches!(never, Err(Error::NoKeys)), "{never:?}");
}

/// Tables of an earlier version of this library have no tombstones.
#[tokio::test]
async fn a_context_that_was_shredded_without_tombstones_stays_so() {
    let harness = FaultHarness::with_hints().with_registry();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    assert!(shred(&harness, &process, &context).await.is_complete());
    harness.rows.tamper(|rows| rows.retain(|row| !row.is_tombstone()));
    let process = harness.process().await;
    let refused = within(process.blind_index(&context, &EMAIL, "ada")).await;
    assert!(matches!(refused, Err(Error::Shredded)), "{refused:?}");
    assert_shredded(&process, &context, &sealed).await;
    // Shredding it again adds them.
    assert!(shred(&harness, &process, &context).await.is_complete());
    assert_buried(&harness);
}

#[tokio::test]
async fn no_receipt_claims_what_the_rows_do_not_show() {
    let (a, hour) = (context("a"), Duration::from_secs(3600));
    // A row that claims to be destroyed but has wraps.
    let harness = FaultHarness::with_hints();
    let manager = tool(&harness);
    let first = manager.create(&a).await.unwrap();
    manager.rotate(&a).await.unwrap();
    let wraps = first.wraps.clone();
    harness.rows.tamper(|rows| {
        for row in rows.iter_mut().filter(|row| row.id == first.id) {
            row.state = KeyState::Destroyed;
        }
    });
    let refused = manager.shred(&a, hour).await;
    assert!(
        matches!(&refused, Err(Error::Store(StoreError::Corrupt { what })) if what.contains("wraps")),
        "{refused:?}"
    );
    // Everything that could be destroyed was.
    let states: Vec<_> = harness.rows.records().iter().map(|row| row.state).collect();
    assert_eq!(states, [KeyState::Destroyed; 2]);
    assert_eq!(harness.rows.records()[0].wraps, wraps);
    harness.rows.tamper(|rows| {
        for row in rows {
            row.wraps.clear();
        }
    });
    assert_eq!(manager.shred(&a, hour).await.unwrap().versions.len(), 2);
    // A missing row, whose key may exist elsewhere: the first, or one in between.
    for missing in [1, 2] {
        let harness = FaultHarness::with_hints();
        let manager = tool(&harness).for_usage(KeyUsage::Index);
        manager.create(&a).await.unwrap();
        manager.rotate(&a).await.unwrap();
        manager.rotate(&a).await.unwrap();
        harness
            .rows
            .tamper(|rows| rows.retain(|row| row.version.get() != missing));
        let refused = manager.shred(&a, hour).await;
        assert!(
            matches!(&refused, Err(Error::Store(StoreError::Corrupt { what })) if what.contains("gap")),
            "{refused:?}"
        );
    }
}
