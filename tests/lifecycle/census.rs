//! No version that rows still use is destroyed, unless that is requested with a reason.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use encx::keys::{DataKeyId, Destruction, KeyManager, KeyState};
use encx::store::{ColumnCount, KeyCensus, KeyRecord, OpenTransactions, StoreError, Timestamp};
use encx::{Ciphertext, Crypto, Error};
use encx_test_support::{FaultHarness, HOUR, SECOND, context, open, seal, settle};

use super::{drive, tool};

/// Gives configured answers, and records the queries.
#[derive(Clone, Debug, Default)]
struct Census(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    rows: Vec<ColumnCount>,
    open: OpenTransactions,
    down: bool,
    asked: Vec<Asked>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    Rows(DataKeyId),
    Transactions,
}

impl Census {
    fn set(&self, rows: &[(&str, &str, u64)]) {
        let rows = rows
            .iter()
            .map(|(table, column, rows)| ColumnCount::new(*table, *column, *rows));
        self.0.lock().unwrap().rows = rows.collect();
    }

    fn set_open(&self, open: OpenTransactions) {
        self.0.lock().unwrap().open = open;
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }
}

#[async_trait]
impl KeyCensus for Census {
    async fn rows_under(&self, id: DataKeyId) -> Result<Vec<ColumnCount>, StoreError> {
        let mut answers = self.0.lock().unwrap();
        answers.asked.push(Asked::Rows(id));
        if answers.down {
            return Err(StoreError::unavailable(std::io::Error::other("down")));
        }
        Ok(answers.rows.clone())
    }

    async fn open_transactions(&self) -> Result<OpenTransactions, StoreError> {
        let mut answers = self.0.lock().unwrap();
        answers.asked.push(Asked::Transactions);
        Ok(answers.open)
    }
}

async fn rotated(harness: &FaultHarness, census: &Census) -> (Crypto, Ciphertext) {
    let process = harness.built(harness.builder().census(census.clone())).await;
    let sealed = seal(&process, &context("a")).await;
    process.key_manager().rotate(&context("a")).await.unwrap();
    (process, sealed)
}

async fn destroy(manager: &KeyManager, id: DataKeyId) -> Destruction {
    manager.destroy(&context("a"), id).await.unwrap()
}

/// Runs the destruction of a version up to its quarantine.
async fn suspend(manager: &KeyManager, id: DataKeyId) -> (KeyRecord, Timestamp) {
    match destroy(manager, id).await {
        Destruction::Quarantined { record, until } => (record, until),
        other => panic!("{other:?}"),
    }
}

fn state(harness: &FaultHarness, id: DataKeyId) -> KeyState {
    let records = harness.rows.records();
    records.iter().find(|record| record.id == id).unwrap().state
}

/// The reason for a version's state in the audit log.
fn reason(harness: &FaultHarness, id: DataKeyId, to: KeyState) -> Option<String> {
    let log = harness.rows.audit_log();
    let change = log
        .into_iter()
        .rfind(|change| change.key == id && change.to == to);
    change.unwrap().reason
}

#[tokio::test]
async fn destroying_is_refused_while_rows_use_the_version() {
    let (harness, census) = (FaultHarness::new(), Census::default());
    let (process, sealed) = rotated(&harness, &census).await;
    let (manager, context, id) = (process.key_manager(), context("a"), sealed.key_id());
    census.set(&[("users", "ssn", 12), ("users", "iban", 0), ("orders", "card", 1)]);
    let refused = manager.destroy(&context, id).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("12 in users.ssn, 1 in orders.card"), "{text}");
    assert!(!refused.is_retryable());
    let Error::StillInUse { id: of, columns } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((of, columns.len()), (id, 2));
    open(&process, &context, &sealed).await.unwrap();

    // A census that fails does not count as zero.
    census.set(&[]);
    census.0.lock().unwrap().down = true;
    let refused = manager.destroy(&context, id).await.unwrap_err();
    assert!(
        matches!(refused, Error::Store(StoreError::Unavailable { .. })),
        "{refused:?}"
    );
    open(&process, &context, &sealed).await.unwrap();
    assert_eq!(census.asked(), [Asked::Rows(id); 2]);
}

#[tokio::test]
async fn a_version_is_suspended_for_a_day_and_counted_again_before_it_is_destroyed() {
    let (harness, census) = (FaultHarness::new(), Census::default());
    let (process, sealed) = rotated(&harness, &census).await;
    let (manager, id) = (process.key_manager(), sealed.key_id());
    let (record, until) = suspend(&manager, id).await;
    assert_eq!(record.state, KeyState::Suspended);
    assert_eq!(until, record.changed_at.plus(24 * HOUR));
    assert_eq!(census.asked(), [Asked::Rows(id)]);
    // A read is refused, and nothing is lost.
    let refused = open(&process, &context("a"), &sealed).await;
    assert!(matches!(refused, Err(Error::Suspended { .. })), "{refused:?}");
    harness.clock.advance(24 * HOUR - SECOND);
    settle().await;
    assert_eq!(suspend(&manager, id).await.1, until);
    assert_eq!(census.asked(), [], "the census is not asked before its time");

    // Rows that arrived since are found. After the version is resumed, they can be read.
    harness.clock.advance(2 * SECOND);
    census.set(&[("users", "ssn", 1)]);
    let refused = manager.destroy(&context("a"), id).await;
    assert!(matches!(refused, Err(Error::StillInUse { .. })), "{refused:?}");
    assert_eq!(census.asked(), [Asked::Transactions, Asked::Rows(id)]);
    assert_eq!(state(&harness, id), KeyState::Suspended);
    let a = context("a");
    manager.set_state(&a, id, KeyState::Deactivated).await.unwrap();
    open(&process, &context("a"), &sealed).await.unwrap();

    // A new destruction starts, and another process, without knowledge of the first, continues it.
    census.set(&[]);
    let (_, until) = suspend(&manager, id).await;
    harness.clock.advance(24 * HOUR + SECOND);
    let other = tool(&harness).with_census(census.clone());
    census.asked();
    let Destruction::Destroyed(record) = destroy(&other, id).await else {
        panic!("not destroyed after {until:?}");
    };
    assert_eq!((record.state, record.wraps.len()), (KeyState::Destroyed, 0));
    assert_eq!(census.asked(), [Asked::Transactions, Asked::Rows(id)]);
    // The waiting caller now gets the result.
    assert!(destroy(&manager, id).await.is_destroyed());
}

#[tokio::test]
async fn a_transaction_that_may_be_older_than_the_suspension_is_waited_for() {
    let (harness, census) = (FaultHarness::new(), Census::default());
    let (process, sealed) = rotated(&harness, &census).await;
    let (manager, id) = (process.key_manager(), sealed.key_id());
    suspend(&manager, id).await;
    harness.clock.advance(25 * HOUR);
    for older in [
        OpenTransactions::new(Some(26 * HOUR), None),
        OpenTransactions::new(None, Some(2 * HOUR)),
    ] {
        census.set_open(older);
        census.asked();
        match destroy(&manager, id).await {
            Destruction::AwaitingTransactions { record, open } => {
                assert_eq!((record.state, open), (KeyState::Suspended, older));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(
            census.asked(),
            [Asked::Transactions],
            "what it wrote cannot be counted"
        );
    }
    census.set_open(OpenTransactions::new(Some(HOUR), Some(HOUR / 2)));
    assert!(destroy(&manager, id).await.is_destroyed());
}

#[tokio::test]
async fn a_process_that_has_not_followed_is_waited_for() {
    let (harness, census) = (FaultHarness::with_hints().with_registry(), Census::default());
    let (process, sealed) = rotated(&harness, &census).await;
    let (manager, id) = (tool(&harness).with_census(census.clone()), sealed.key_id());
    let context = context("a");
    let step = || drive(&harness, SECOND, manager.destroy(&context, id));
    // Before the suspension, and after it.
    for expected in [KeyState::Deactivated, KeyState::Suspended] {
        harness.store.polls.hold();
        match step().await.unwrap() {
            Destruction::AwaitingProcesses(processes) => assert_eq!(processes.silent.len(), 1),
            other => panic!("{other:?}"),
        }
        assert_eq!(state(&harness, id), expected);
        assert_eq!(census.asked(), [], "it may write as long as it has not followed");
        harness.store.polls.release();
        if expected == KeyState::Deactivated {
            let suspended = step().await.unwrap();
            assert!(
                matches!(suspended, Destruction::Quarantined { .. }),
                "{suspended:?}"
            );
            census.asked();
            for _ in 0..24 {
                harness.clock.advance(HOUR);
                settle().await;
            }
        }
    }
    assert!(step().await.unwrap().is_destroyed());
    drop(process);
}

#[tokio::test]
async fn a_quarantine_is_skipped_by_name_and_for_a_reason() {
    let (harness, census) = (FaultHarness::with_hints().with_registry(), Census::default());
    let (process, sealed) = rotated(&harness, &census).await;
    let (manager, id) = (process.key_manager(), sealed.key_id());
    for unfit in [
        manager.clone().without_quarantine(" "),
        manager.clone().quarantine(std::time::Duration::ZERO),
    ] {
        let refused = unfit.destroy(&context("a"), id).await;
        assert!(matches!(refused, Err(Error::Config { .. })), "{refused:?}");
        assert_eq!(state(&harness, id), KeyState::Deactivated);
    }
    let skipping = manager
        .without_quarantine("the table was dropped")
        .because("ticket 7");
    // Rows and transactions are still checked.
    census.set_open(OpenTransactions::new(Some(HOUR), None));
    let a = context("a");
    let step = || drive(&harness, SECOND, skipping.destroy(&a, id));
    let waiting = step().await.unwrap();
    assert!(
        matches!(waiting, Destruction::AwaitingTransactions { .. }),
        "{waiting:?}"
    );
    census.set_open(OpenTransactions::NONE);
    assert!(step().await.unwrap().is_destroyed());
    let rows = Asked::Rows(id);
    assert_eq!(
        census.asked(),
        [rows, Asked::Transactions, Asked::Transactions, rows]
    );
    for to in [KeyState::Suspended, KeyState::Destroyed] {
        let said = reason(&harness, id, to);
        assert_eq!(
            said.as_deref(),
            Some("without_quarantine: the table was dropped; ticket 7")
        );
    }
}

/// Without a registry, only time shows when all processes have stopped.
#[tokio::test]
async fn without_a_registry_the_quarantine_lasts_as_long_as_a_process_serves_a_key() {
    let (harness, census) = (FaultHarness::new(), Census::default());
    let builder = harness.builder().census(census.clone());
    let builder = builder.ttl(HOUR).stale_encrypt_if_unavailable(HOUR);
    let process = harness.built(builder).await;
    let (a, sealed) = (context("a"), seal(&process, &context("a")).await);
    let (manager, id) = (process.key_manager(), sealed.key_id());
    manager.rotate(&a).await.unwrap();
    let serves_for = 2 * HOUR;
    let alone = tool_without_registry(&harness);
    for (unfit, advice) in [
        (manager.clone().without_quarantine("why"), "`destroy_with_data`"),
        (alone.clone().without_quarantine("why"), "`destroy_with_data`"),
        (manager.clone().quarantine(serves_for - SECOND), "7200 seconds"),
    ] {
        let refused = unfit.destroy(&a, id).await.unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, Error::Config { .. }), "{text}");
        assert!(text.contains("no registry") && text.contains(advice), "{text}");
        assert_eq!(state(&harness, id), KeyState::Deactivated);
        assert_eq!(census.asked(), []);
    }
    let long_enough = manager.clone().quarantine(serves_for);
    suspend(&long_enough, id).await;
    // Also if it is suspended already.
    let refused = manager.without_quarantine("why").destroy(&a, id).await;
    assert!(matches!(refused, Err(Error::Config { .. })), "{refused:?}");
    assert_eq!(state(&harness, id), KeyState::Suspended);
    harness.clock.advance(serves_for + SECOND);
    assert!(destroy(&long_enough, id).await.is_destroyed());
    // A manager that was built alone does not know the `ttl` of the processes that encrypt.
    let other = seal(&process, &a).await.key_id();
    process.key_manager().rotate(&a).await.unwrap();
    let refused = alone
        .clone()
        .quarantine(SECOND)
        .destroy(&a, other)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("86400 seconds"), "{refused}");
    assert_eq!(state(&harness, other), KeyState::Deactivated);
    suspend(&alone, other).await;
}

/// A manager alone, on the connection without a registry.
fn tool_without_registry(harness: &FaultHarness) -> KeyManager {
    harness.builder().build_key_manager().unwrap()
}

#[tokio::test]
async fn a_shorter_quarantine_is_set_by_name() {
    let (harness, census) = (FaultHarness::new(), Census::default());
    let (process, sealed) = rotated(&harness, &census).await;
    let (manager, id) = (process.key_manager().quarantine(HOUR), sealed.key_id());
    let (record, until) = suspend(&manager, id).await;
    assert_eq!(until, record.changed_at.plus(HOUR));
    harness.clock.advance(HOUR + SECOND);
    assert!(destroy(&manager, id).await.is_destroyed());
}

#[tokio::test]
async fn a_compromised_version_reads_nothing_already_and_goes_on_from_there() {
    let (harness, census) = (FaultHarness::new(), Census::default());
    let (process, sealed) = rotated(&harness, &census).await;
    let (manager, id) = (process.key_manager(), sealed.key_id());
    let a = context("a");
    let compromised = manager.set_state(&a, id, KeyState::Compromised).await.unwrap();
    let (record, until) = suspend(&manager, id).await;
    assert_eq!(
        (record.state, until),
        (KeyState::Compromised, compromised.changed_at.plus(24 * HOUR))
    );
    harness.clock.advance(24 * HOUR + SECOND);
    assert!(destroy(&manager, id).await.is_destroyed());
    assert_eq!(census.asked(), [Asked::Transactions, Asked::Rows(id)]);
}

#[tokio::test]
async fn destroying_with_the_data_waits_for_no_process_and_says_why() {
    let (harness, census) = (FaultHarness::new(), Census::default());
    let (process, sealed) = rotated(&harness, &census).await;
    census.set(&[("users", "ssn", 12)]);
    let (manager, id) = (process.key_manager(), sealed.key_id());
    let refused = manager.destroy_with_data(&context("a"), id, "").await;
    assert!(matches!(refused, Err(Error::Config { .. })), "{refused:?}");
    open(&process, &context("a"), &sealed).await.unwrap();
    let a = context("a");
    manager.destroy_with_data(&a, id, "test data").await.unwrap();
    let refused = open(&process, &context("a"), &sealed).await;
    assert!(matches!(refused, Err(Error::Destroyed { .. })), "{refused:?}");
    assert_eq!(census.asked(), []);
    let said = reason(&harness, id, KeyState::Destroyed);
    assert_eq!(said.as_deref(), Some("destroy_with_data: test data"));
}

#[tokio::test]
async fn a_manager_alone_asks_the_census_that_it_is_given() {
    let (harness, census) = (FaultHarness::new(), Census::default());
    let sealed = seal(&harness.process().await, &context("a")).await;
    let manager = harness.elsewhere().with_census(Arc::new(census.clone()));
    manager.rotate(&context("a")).await.unwrap();
    census.set(&[("users", "ssn", 1)]);
    let refused = manager.destroy(&context("a"), sealed.key_id()).await;
    assert!(matches!(refused, Err(Error::StillInUse { .. })), "{refused:?}");
    // The active version is refused because of its state, regardless of rows.
    census.set(&[]);
    let active = manager.list(&context("a")).await.unwrap()[1].id;
    let refused = manager.destroy(&context("a"), active).await;
    assert!(
        matches!(refused, Err(Error::Store(StoreError::IllegalTransition { .. }))),
        "{refused:?}"
    );
}
