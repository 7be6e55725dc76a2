//! Status reports what exists, and what could not be determined.

use encx::keys::{KeyState, KeyUsage, Maintenance};
use encx::kms::{KekState, KmsErrorKind};
use encx::ops::{Reported, StatusOptions};
use encx::store::KeyQuery;
use encx_test_support::{FaultHarness, HOUR, SECOND, context, seal, within};
use encx_testkit::MemoryKms;

use crate::json;

#[tokio::test]
async fn a_report_has_keks_versions_what_is_due_processes_and_days() {
    let harness = FaultHarness::new().with_registry();
    let process = harness.built(harness.builder().process_name("billing-7")).await;
    for tenant in ["a", "b", "c"] {
        seal(&process, &context(tenant)).await;
    }
    seal(&process, &context("a")).await;
    harness.pass(2 * HOUR).await;
    let young = context("young");
    seal(&process, &young).await;
    harness.pass(11 * SECOND).await;
    let maintenance = Maintenance::new(process.key_manager())
        .rotate_every(HOUR)
        .never_rotate_for("tenantId", "c");
    let status = within(process.status(&StatusOptions::new().due_by(&maintenance))).await;
    let kek = &status.kms[0].keks[0];
    assert_eq!(kek.name.as_str(), MemoryKms::DEFAULT_KEK);
    assert_eq!(kek.description.known().unwrap().state, KekState::Enabled);
    let versions = status.versions.known().unwrap();
    assert_eq!(versions.len(), 1);
    let count = &versions[0];
    assert_eq!(
        (count.usage, count.state, count.versions),
        (KeyUsage::Data, KeyState::Active, 4)
    );
    let due = status.due.known().unwrap();
    assert_eq!((due.versions, due.unreadable, due.first.len()), (2, 0, 2));
    // In the order of their ids, which is random within one millisecond.
    let of_due = |tenant| due.first.iter().any(|due| due.context == context(tenant));
    assert!(of_due("a") && of_due("b"), "{due:?}");
    assert_eq!(due.first[0].period, HOUR);
    let processes = status.processes.known().unwrap();
    assert_eq!(processes.len(), 1);
    assert_eq!(processes[0].name, "billing-7");
    let days = status.days.known().unwrap();
    assert_eq!(days.iter().map(|day| day.encrypts).sum::<u64>(), 5);
    assert_eq!(days.iter().map(|day| day.kms_failures).sum::<u64>(), 0);
    // This KMS is free.
    assert_eq!(status.cost.known().unwrap().usd_per_month, 0.0);
    let written = json(&status);
    assert_eq!(written["health"]["status"], "UP");
    assert_eq!(written["kms"][0]["keks"][0]["description"]["state"], "enabled");
    assert_eq!(written["versions"][0]["state"], "active");
    assert_eq!(written["unreadable_versions"], 0);
    assert_eq!(written["due"]["first"][0]["context"]["purpose"], "pii");
    assert_eq!(written["cache"]["misses"], 4);
    assert_eq!(written["processes"][0]["name"], "billing-7");
}

#[tokio::test]
async fn what_cannot_be_found_out_hides_nothing_else() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    let mine = context("mine");
    seal(&process, &mine).await;
    harness
        .kms
        .set_kek_fault(MemoryKms::DEFAULT_KEK, Some(KmsErrorKind::AccessDenied));
    let status = within(process.status(&StatusOptions::new())).await;
    let description = &status.kms[0].keks[0].description;
    assert!(
        matches!(description, Reported::Failed { error } if error.contains("access is denied")),
        "{description:?}"
    );
    assert_eq!(status.versions.known().unwrap()[0].versions, 1);
    let written = json(&status);
    assert_eq!(written["processes"], "not recorded");
    assert_eq!(written["days"], "not recorded");
    assert_eq!(written["cost"], "not recorded");
    harness.rows.set_unavailable(true);
    let status = within(process.status(&StatusOptions::new())).await;
    assert!(matches!(status.versions, Reported::Failed { .. }));
    assert!(matches!(status.due, Reported::Failed { .. }));
    let error = json(&status)["versions"]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("unavailable"), "{error}");
}

#[tokio::test]
async fn a_row_that_encx_did_not_write_hides_no_other_that_is_due() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    for tenant in ["a", "b"] {
        seal(&process, &context(tenant)).await;
    }
    harness.rows.tamper(|rows| {
        rows[0].context.insert("tenantId".to_owned(), "moved".to_owned());
    });
    harness.clock.advance(2 * HOUR);
    let maintenance = Maintenance::new(process.key_manager()).rotate_every(HOUR);
    let due = within(maintenance.due(1)).await.unwrap();
    assert_eq!((due.versions, due.unreadable, due.first.len()), (1, 1, 1));
    // Nor is it dropped from a list without a word.
    let edited = harness.rows.records()[0].id;
    let page = within(maintenance.due_page(KeyQuery::new(10))).await.unwrap();
    assert_eq!((page.records.len(), page.unreadable), (1, vec![edited]));
}

#[tokio::test]
async fn a_list_of_what_is_due_is_of_those_that_were_asked_for() {
    let harness = FaultHarness::new();
    let process = harness.process().await;
    seal(&process, &context("old")).await;
    let began = harness.rows.records()[0].activated_at.unwrap();
    harness.clock.advance(HOUR);
    seal(&process, &context("newer")).await;
    harness.clock.advance(2 * HOUR);
    let maintenance = Maintenance::new(process.key_manager()).rotate_every(HOUR);
    let due = async |query: KeyQuery| within(maintenance.due_page(query)).await.unwrap().records.len();
    assert_eq!(due(KeyQuery::new(10)).await, 2);
    let early = began.plus(HOUR / 2);
    assert_eq!(due(KeyQuery::new(10).activated_before(early)).await, 1);
    // Keys that are not due are never listed.
    let late = began.plus(10 * HOUR);
    seal(&process, &context("young")).await;
    assert_eq!(due(KeyQuery::new(10).activated_before(late)).await, 2);
}
