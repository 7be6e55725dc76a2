//! Changes that a poll does not list, cannot follow, or lists only in part.

use encx::Error;
use encx::keys::{KeyState, Scope};
use encx::store::StateChange;
use encx_test_support::{FaultHarness, HOUR, MINUTE, context, open, seal, settle, until};

#[tokio::test]
async fn what_was_edited_by_hand_is_found_out_within_state_ttl() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let sealed = seal(&process, &context("a")).await;
    harness.next_poll().await;
    // Neither the revision nor the time of the change is updated, so no poll lists it.
    harness.rows.tamper(|rows| {
        rows[0].state = KeyState::Suspended;
        rows[0].suspended_from = Some(KeyState::Active);
    });
    open(&process, &context("a"), &sealed).await.unwrap();
    harness.next_poll().await;
    let refused = open(&process, &context("a"), &sealed).await.unwrap_err();
    assert!(matches!(refused, Error::Suspended { .. }), "{refused}");
}

#[tokio::test]
async fn a_key_that_is_announced_as_suspended_is_refused_even_if_its_record_cannot_be_read() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let (sealed, other) = (
        seal(&process, &context("a")).await,
        seal(&process, &context("b")).await,
    );
    harness.suspend_elsewhere(&context("a")).await;
    harness.store.fail_loads(true);
    harness.next_failed_poll(&process).await;
    assert!(open(&process, &context("a"), &sealed).await.is_err());
    open(&process, &context("b"), &other).await.unwrap();
    harness.store.fail_loads(false);
    harness.next_poll().await;
    let refused = open(&process, &context("a"), &sealed).await.unwrap_err();
    assert!(matches!(refused, Error::Suspended { .. }), "{refused}");
}

#[tokio::test]
async fn a_poll_that_is_cut_off_has_followed_what_it_read_and_goes_on_from_there() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let first = seal(&process, &context("first")).await;
    let last = seal(&process, &context("last")).await;
    harness.next_poll().await;
    // More changes than fit on a page, between the two that matter.
    harness.suspend_elsewhere(&context("first")).await;
    for n in 0..2500 {
        harness.elsewhere().create(&context(n)).await.unwrap();
    }
    harness.suspend_elsewhere(&context("last")).await;
    harness.store.fail_poll_after(1);
    harness.next_failed_poll(&process).await;
    let refused = open(&process, &context("first"), &first).await.unwrap_err();
    assert!(matches!(refused, Error::Suspended { .. }), "{refused}");
    open(&process, &context("last"), &last).await.unwrap();
    let polls = harness.rows.polls();
    harness.clock.advance(MINUTE / 2);
    let is_refused = || process.stats().failed_polls == 1 && harness.rows.polls() >= polls + 2;
    until("the rest of the pages", is_refused).await;
    settle().await;
    let refused = open(&process, &context("last"), &last).await.unwrap_err();
    assert!(matches!(refused, Error::Suspended { .. }), "{refused}");
}

#[tokio::test]
async fn invented_contexts_push_no_key_out() {
    let harness = FaultHarness::new();
    let process = harness
        .built(harness.builder().max_keyrings(10).create_on_first_use(false))
        .await;
    let mut sealed = Vec::new();
    for n in 0..10 {
        harness.elsewhere().create(&context(n)).await.unwrap();
        sealed.push(seal(&process, &context(n)).await);
    }
    let calls = harness.kms.calls().total();
    for n in 0..200 {
        let invented = context(format!("invented {n}"));
        assert!(
            process
                .encrypt(&invented, "x", encx_test_support::SSN.row(1))
                .await
                .is_err()
        );
        assert!(open(&process, &invented, &sealed[0]).await.is_err());
    }
    assert_eq!(process.stats().keyrings, 10);
    for (n, sealed) in sealed.iter().enumerate() {
        open(&process, &context(n), sealed).await.unwrap();
    }
    assert_eq!(harness.kms.calls().total(), calls, "all keys are still there");
}

#[tokio::test]
async fn a_row_that_was_never_unwrapped_is_no_rollback() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    seal(&process, &context("a")).await;
    let genuine = harness.rows.records();
    // A forged version with the highest number does not unwrap. While it exists, nothing is encrypted.
    harness.rows.tamper(|rows| {
        let mut row = rows[0].clone();
        let mut id = [0xff; 16];
        (id[6], id[8]) = (0x7f, 0xbf);
        row.id = encx::keys::DataKeyId::from_bytes(id).unwrap();
        row.version = encx::keys::KeyVersion::new(2).unwrap();
        rows.push(row);
    });
    harness.clock.advance(HOUR + MINUTE);
    settle().await;
    assert!(
        process
            .encrypt(&context("a"), "x", encx_test_support::SSN.row(1))
            .await
            .is_err()
    );
    harness.rows.tamper(|rows| *rows = genuine);
    harness.clock.advance(2 * MINUTE);
    settle().await;
    seal(&process, &context("a")).await;
}

#[tokio::test]
async fn an_insert_that_is_answered_late_brings_no_older_state_back() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    harness.store.inserts.hold();
    let first = tokio::spawn({
        let process = process.clone();
        async move {
            process
                .encrypt(&context("a"), "x", encx_test_support::SSN.row(1))
                .await
        }
    });
    harness.store.inserts.until_waiting(1).await;
    // Stored but not yet acknowledged: it is suspended in between, and the poll sees that.
    let record = harness.rows.records().remove(0);
    assert_eq!(record.scope, Scope::of(record.usage, &context("a")));
    let suspend = StateChange::new(&record, KeyState::Suspended);
    encx::store::KeyStore::apply(&harness.rows, &suspend)
        .await
        .unwrap();
    harness.next_poll().await;
    harness.store.inserts.release();
    let _ = first.await.unwrap();
    for _ in 0..4 {
        let refused = process
            .encrypt(&context("a"), "x", encx_test_support::SSN.row(1))
            .await
            .unwrap_err();
        assert!(matches!(refused, Error::NoActiveKey), "{refused}");
        harness.next_poll().await;
    }
}
