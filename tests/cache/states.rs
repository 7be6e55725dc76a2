//! A state changed by another process is seen in time, by one poll for all keys, and no older read undoes it.

use encx::keys::KeyState;
use encx::store::{KeyStore, StoreError};
use encx::{Crypto, Error, Keyring};
use encx_test_support::{
    FaultHarness, MINUTE, SECOND, SSN, at_once, context, open, seal, settle, until, with_unknown_key, within,
};
use tokio::task::JoinHandle;

fn is_ready(keyring: &Keyring) -> bool {
    keyring.try_encrypt("", SSN.row(1)).is_ok()
}

#[tokio::test]
async fn a_suspension_elsewhere_is_seen_within_state_ttl() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    let id = harness.suspend_elsewhere(&context).await;

    // The clock jumps past it at once: the known state is too old to use without a query.
    harness.clock.advance(MINUTE + SECOND);
    assert!(matches!(
        keyring.try_decrypt(&sealed, SSN.row(1)),
        Err(Error::NotReady)
    ));
    assert!(matches!(
        keyring.try_encrypt("", SSN.row(1)),
        Err(Error::NotReady)
    ));
    let refused = within(keyring.decrypt(&sealed, SSN.row(1))).await;
    assert!(
        matches!(refused, Err(Error::Suspended { id: of, .. }) if of == id),
        "{refused:?}"
    );
    let refused = within(process.encrypt(&context, "", SSN.row(1))).await;
    assert!(matches!(refused, Err(Error::NoActiveKey)), "{refused:?}");
    assert_eq!(process.stats().keys, 0);

    harness
        .elsewhere()
        .set_state(&context, id, KeyState::Active)
        .await
        .unwrap();
    harness.clock.advance(MINUTE + SECOND);
    within(keyring.decrypt(&sealed, SSN.row(1))).await.unwrap();
    within(keyring.encrypt("", SSN.row(1))).await.unwrap();
}

#[tokio::test]
async fn the_poller_sees_a_change_before_any_call() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    harness.suspend_elsewhere(&context).await;
    assert!(is_ready(&keyring));
    harness.next_poll().await;
    assert!(!is_ready(&keyring));
    assert_eq!(process.stats().keys, 0);
}

#[tokio::test]
async fn a_promotion_elsewhere_is_followed_within_state_ttl() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let old = seal(&process, &context).await;
    let promoted = harness.elsewhere().rotate(&context).await.unwrap();
    assert!(!process.needs_reencryption(&context, &old).await.unwrap());
    harness.next_poll().await;
    assert_eq!(seal(&process, &context).await.key_id(), promoted.id);
    assert!(process.needs_reencryption(&context, &old).await.unwrap());
    open(&process, &context, &old).await.unwrap();
    assert_eq!(process.stats().keys, 2);
}

#[tokio::test]
async fn a_destruction_elsewhere_is_followed_within_state_ttl() {
    let harness = FaultHarness::new();
    let (process, context) = (harness.process().await, context("a"));
    let old = seal(&process, &context).await;
    harness.elsewhere().rotate(&context).await.unwrap();
    harness.next_poll().await;
    seal(&process, &context).await;
    assert_eq!(process.stats().keys, 2);
    harness
        .elsewhere()
        .destroy_with_data(&context, old.key_id(), "a test")
        .await
        .unwrap();
    harness.next_poll().await;
    assert_eq!(process.stats().keys, 1);
    let refused = open(&process, &context, &old).await;
    assert!(matches!(refused, Err(Error::Destroyed { .. })), "{refused:?}");
    seal(&process, &context).await;
}

#[tokio::test]
async fn one_poll_serves_all_keys_of_a_process() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let tenants: Vec<_> = (0..200).map(context).collect();
    let mut sealed = Vec::new();
    for tenant in &tenants {
        sealed.push(seal(&process, tenant).await);
    }
    let loads = process.stats().store_loads;
    // The first poll with results lists this process's own changes, which it already knows.
    for _ in 0..3 {
        let polls = harness.rows.polls();
        harness.next_poll().await;
        assert_eq!(harness.rows.polls(), polls + 1);
        assert_eq!(process.stats().store_loads, loads);
    }
    for tenant in &tenants[..3] {
        harness.suspend_elsewhere(tenant).await;
    }
    let polls = harness.rows.polls();
    harness.next_poll().await;
    assert_eq!(harness.rows.polls(), polls + 1);
    assert_eq!(process.stats().store_loads, loads + 1);
    for (number, (tenant, sealed)) in tenants.iter().zip(&sealed).enumerate() {
        assert_eq!(
            open(&process, tenant, sealed).await.is_ok(),
            number >= 3,
            "{number}"
        );
    }
    assert_eq!(process.stats().store_loads, loads + 1);
}

#[tokio::test]
async fn with_hints_a_change_is_seen_at_once() {
    let harness = FaultHarness::with_hints();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    let polls = harness.rows.polls();
    harness.suspend_elsewhere(&context).await;
    until("the hint", || !is_ready(&keyring)).await;
    let refused = open(&process, &context, &sealed).await;
    assert!(matches!(refused, Err(Error::Suspended { .. })), "{refused:?}");
    assert_eq!(harness.rows.polls(), polls);
}

#[tokio::test]
async fn a_flood_of_hints_puts_off_no_poll() {
    let harness = FaultHarness::new();
    harness.store.flood_with_hints();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    for _ in 0..5 {
        let polls = harness.rows.polls();
        harness.clock.advance(30 * SECOND);
        until("the next poll", || harness.rows.polls() > polls).await;
    }
    harness.suspend_elsewhere(&context).await;
    harness.next_poll().await;
    let refused = open(&process, &context, &sealed).await;
    assert!(matches!(refused, Err(Error::Suspended { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_key_store_that_hangs_on_a_hint_does_not_stop_the_polls() {
    let harness = FaultHarness::with_hints();
    let (process, context) = (harness.process().await, context("a"));
    seal(&process, &context).await;
    settle().await;
    let keyring = process.keyring(&context).await.unwrap();
    harness.store.loads.hold();
    harness.suspend_elsewhere(&context).await;
    harness.store.loads.until_waiting(1).await;
    let polls = harness.rows.polls();
    harness.clock.advance(30 * SECOND);
    until("the next poll", || harness.rows.polls() > polls).await;
    harness.store.loads.release();
    until("the change", || !is_ready(&keyring)).await;
}

#[tokio::test]
async fn a_change_before_the_first_poll_is_not_missed() {
    let harness = FaultHarness::new();
    harness.store.polls.hold();
    let process = harness.builder().build().await.unwrap();
    let context = context("a");
    seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    harness.suspend_elsewhere(&context).await;
    // Its first poll, after the counted one, begins to follow changes here.
    harness.store.polls.until_waiting(1).await;
    harness.store.polls.release();
    until("the change", || !is_ready(&keyring)).await;
}

#[tokio::test]
async fn a_first_poll_that_fails_is_made_up_for() {
    let harness = FaultHarness::new();
    harness.store.polls.hold();
    let process = harness.builder().build().await.unwrap();
    let context = context("a");
    seal(&process, &context).await;
    let keyring = process.keyring(&context).await.unwrap();
    harness.store.polls.until_waiting(1).await;
    harness.store.set_down(true);
    harness.store.polls.release();
    until("the poll to fail", || process.stats().failed_polls == 1).await;
    harness.suspend_elsewhere(&context).await;
    harness.store.set_down(false);
    harness.next_poll().await;
    assert!(!is_ready(&keyring));
}

/// A harness whose loads may hang for longer than the poll interval.
async fn patient_process(harness: &FaultHarness) -> Crypto {
    harness.built(harness.builder().load_timeout(10 * MINUTE)).await
}

fn spawn_open(
    process: &Crypto,
    tenant: &str,
    sealed: &encx::Ciphertext,
) -> JoinHandle<Result<encx::Plaintext, Error>> {
    let (process, context, sealed) = (process.clone(), context(tenant), sealed.clone());
    tokio::spawn(async move { open(&process, &context, &sealed).await })
}

#[tokio::test]
async fn a_load_that_read_before_a_change_is_not_believed() {
    for harness in [FaultHarness::new(), FaultHarness::with_hints()] {
        let sealed = seal(&harness.process().await, &context("a")).await;
        let process = patient_process(&harness).await;
        harness.store.loads.hold();
        let call = spawn_open(&process, "a", &sealed);
        harness.store.loads.until_waiting(1).await;
        harness.suspend_elsewhere(&context("a")).await;
        if harness.store.changes_are_pushed() {
            until("the hint to be followed", || harness.store.loads.waiting() == 2).await;
        } else {
            harness.clock.advance(MINUTE / 2);
            until("the poll to read again", || harness.store.loads.waiting() == 2).await;
        }
        harness.store.loads.release();
        let refused = within(call).await.unwrap();
        assert!(matches!(refused, Err(Error::Suspended { .. })), "{refused:?}");
        let refused = open(&process, &context("a"), &sealed).await;
        assert!(matches!(refused, Err(Error::Suspended { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_load_that_read_before_a_change_is_not_believed_where_the_change_is_known_already() {
    for is_waited_for in [true, false] {
        let harness = FaultHarness::new();
        let maker = harness.process().await;
        let (a, b) = (
            seal(&maker, &context("a")).await,
            seal(&maker, &context("b")).await,
        );
        let process = patient_process(&harness).await;
        // A batch starts reading first, but what it reads is newer.
        harness.store.wide_loads.hold();
        harness.store.loads.hold();
        let batch = tokio::spawn({
            let (process, a) = (process.clone(), a.clone());
            async move {
                let of = (context("a"), context("b"));
                let items = [(&of.0, &a, SSN.row(1)), (&of.1, &b, SSN.row(1))];
                process.decrypt_many(items).await
            }
        });
        harness.store.wide_loads.until_waiting(1).await;
        let late = spawn_open(&process, "a", &a);
        harness.store.loads.until_waiting(1).await;
        harness.suspend_elsewhere(&context("a")).await;
        harness.store.wide_loads.release();
        let opened = within(batch).await.unwrap();
        assert!(matches!(opened[0], Err(Error::Suspended { .. })), "{opened:?}");
        assert!(opened[1].is_ok(), "{opened:?}");

        harness.next_poll().await;
        if is_waited_for {
            harness.store.loads.release();
            let refused = within(late).await.unwrap();
            assert!(matches!(refused, Err(Error::Suspended { .. })), "{refused:?}");
        } else {
            late.abort();
            harness.store.loads.release();
            settle().await;
        }
        let refused = open(&process, &context("a"), &a).await;
        assert!(matches!(refused, Err(Error::Suspended { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_read_that_began_before_a_key_was_made_does_not_make_it_be_forgotten() {
    let harness = FaultHarness::new();
    let process = patient_process(&harness).await;
    let garbage = with_unknown_key(&seal(&process, &context("other")).await);
    harness.kms.reset_calls();
    // One read finds no key, and its process creates the first. Just before that is stored, another read finds no key
    // either.
    harness.store.early_inserts.hold();
    let making = tokio::spawn({
        let process = process.clone();
        async move { seal(&process, &context("a")).await }
    });
    harness.store.early_inserts.until_waiting(1).await;
    harness.store.loads.hold();
    let late = spawn_open(&process, "a", &garbage);
    harness.store.loads.until_waiting(1).await;
    harness.store.early_inserts.release();
    let sealed = within(making).await.unwrap();
    harness.store.loads.release();
    let refused = within(late).await.unwrap();
    assert!(matches!(refused, Err(Error::UnknownKey { .. })), "{refused:?}");
    let keyring = at_once(process.keyring(&context("a"))).unwrap().unwrap();
    keyring.try_decrypt(&sealed, SSN.row(1)).unwrap();
    assert_eq!(harness.kms.calls().total(), 1);
}

#[tokio::test]
async fn a_change_while_the_first_key_is_being_stored_is_not_missed() {
    let harness = FaultHarness::new();
    let process = patient_process(&harness).await;
    harness.store.inserts.hold();
    let making = tokio::spawn({
        let process = process.clone();
        async move { seal(&process, &context("a")).await }
    });
    harness.store.inserts.until_waiting(1).await;
    // It is stored and suspended, a poll reads the suspension, and only then does its creator learn that it was stored.
    harness.suspend_elsewhere(&context("a")).await;
    harness.store.loads.hold();
    harness.clock.advance(MINUTE / 2);
    harness.store.loads.until_waiting(1).await;
    harness.store.inserts.release();
    within(making).await.unwrap();
    harness.store.loads.release();
    until("the suspended key to be dropped", || process.stats().keys == 0).await;
    let refused = within(process.encrypt(&context("a"), "", SSN.row(1))).await;
    assert!(matches!(refused, Err(Error::NoActiveKey)), "{refused:?}");
}

#[tokio::test]
async fn a_caller_that_reads_a_key_while_it_is_being_stored_has_it_ready() {
    let harness = FaultHarness::new();
    let process = patient_process(&harness).await;
    harness.store.inserts.hold();
    let making = tokio::spawn({
        let process = process.clone();
        async move { seal(&process, &context("a")).await }
    });
    harness.store.inserts.until_waiting(1).await;
    assert_eq!(process.stats().keys, 1);
    harness.next_poll().await;
    seal(&process, &context("a")).await;
    harness.store.inserts.release();
    within(making).await.unwrap();
    assert_eq!(harness.kms.calls().total(), 1);
}

#[tokio::test]
async fn a_key_that_could_not_be_stored_is_not_kept() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    harness.store.inserts.hold();
    let making = tokio::spawn({
        let process = process.clone();
        async move { process.encrypt(&context("a"), "", SSN.row(1)).await }
    });
    harness.store.inserts.until_waiting(1).await;
    // Timed out: it may or may not have been stored.
    harness.clock.advance(30 * SECOND);
    let given_up = within(making).await.unwrap();
    assert!(matches!(given_up, Err(Error::TimedOut { .. })), "{given_up:?}");
    until("the key to be dropped", || process.stats().keys == 0).await;
    harness.store.inserts.release();
    seal(&process, &context("a")).await;
    assert_eq!((harness.kms.calls().generate, harness.kms.calls().unwrap), (1, 1));
}

#[tokio::test]
async fn a_corrupt_row_hides_no_other_change() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let (a, b) = (context("a"), context("b"));
    let sealed = (seal(&process, &a).await, seal(&process, &b).await);
    harness.elsewhere().rotate(&a).await.unwrap();
    harness.suspend_elsewhere(&b).await;
    harness.store.corrupt(&a);
    harness.next_poll().await;
    assert_eq!(process.stats().failed_polls, 0);
    let refused = open(&process, &b, &sealed.1).await;
    assert!(matches!(refused, Err(Error::Suspended { .. })), "{refused:?}");
    let refused = open(&process, &a, &sealed.0).await;
    assert!(
        matches!(refused, Err(Error::Store(StoreError::Corrupt { .. }))),
        "{refused:?}"
    );
    assert_eq!(process.stats().keys, 0);
}

#[tokio::test]
async fn a_row_that_was_moved_here_is_refused_and_what_was_known_is_dropped() {
    let harness = FaultHarness::with_hints();
    let (process, context) = (harness.process().await, context("a"));
    let sealed = seal(&process, &context).await;
    settle().await;
    harness
        .rows
        .tamper(|rows| drop(rows[0].context.insert("purpose".into(), "other".into())));
    harness.elsewhere().list(&context).await.unwrap_err();
    // Any change of the scope causes it to be read again.
    let tampered = &harness.rows.records()[0];
    harness
        .rows
        .apply(&encx::store::StateChange::new(tampered, KeyState::Suspended))
        .await
        .unwrap();
    until("the key to be dropped", || process.stats().keys == 0).await;
    let refused = open(&process, &context, &sealed).await;
    assert!(
        matches!(refused, Err(Error::Store(StoreError::Corrupt { .. }))),
        "{refused:?}"
    );
}
