//! Many keyrings are loaded with few queries and a bounded number of KMS calls.

use encx::keys::KeyState;
use encx::{Crypto, Error};
use encx_test_support::{FaultHarness, context, seal, settle, within};
use encx_testkit::{MemoryKeyStore, MemoryKms};

#[tokio::test]
async fn thousands_are_loaded_with_a_query_for_a_thousand() {
    const CONTEXTS: u32 = 2500;
    let harness = FaultHarness::new();
    let maker = harness.process().await;
    let contexts: Vec<_> = (0..CONTEXTS).map(context).collect();
    for context in &contexts {
        maker.key_manager().create(context).await.unwrap();
    }
    let process = harness.built(harness.builder().max_concurrent_kms_calls(7)).await;
    harness.kms.reset_calls();
    let loads = harness.rows.loads();
    let report = within(process.warm_up(&contexts)).await;
    assert_eq!((report.loaded, report.without_keys), (2500, 0));
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!(harness.rows.loads() - loads, 3);
    assert_eq!(harness.kms.calls().unwrap, 2500);
    assert_eq!(harness.kms.calls().total(), 2500);
    assert!(
        harness.kms.max_in_flight() <= 7,
        "{}",
        harness.kms.max_in_flight()
    );
    let misses = process.stats().misses;
    for context in contexts.iter().step_by(100) {
        seal(&process, context).await;
    }
    assert_eq!(process.stats().misses, misses, "all are hot");
    // A second time, it costs nothing.
    let report = within(process.warm_up(&contexts)).await;
    assert_eq!(report.loaded, 2500);
    assert_eq!(
        (harness.kms.calls().total(), harness.rows.loads() - loads),
        (2500, 3)
    );
}

#[tokio::test]
async fn what_fails_holds_up_no_other_and_is_told() {
    let harness = FaultHarness::new();
    let (maker, process) = (harness.process().await, harness.process().await);
    for tenant in ["a", "b", "c"] {
        seal(&maker, &context(tenant)).await;
    }
    let manager = maker.key_manager();
    let id = manager.list(&context("b")).await.unwrap()[0].id;
    manager
        .set_state(&context("b"), id, KeyState::Suspended)
        .await
        .unwrap();
    let report = process
        .warm_up([context("a"), context("b"), context("new"), context("c")])
        .await;
    assert_eq!((report.loaded, report.without_keys), (2, 1));
    assert_eq!(report.failed.len(), 1);
    assert_eq!(report.failed[0].index, 1);
    assert!(matches!(report.failed[0].error, Error::NoActiveKey), "{report:?}");
    // No key was created for contexts without one.
    assert_eq!(manager.list(&context("new")).await.unwrap(), []);
    settle().await;

    process.shutdown().await;
    let report = process.warm_up([context("a"), context("c")]).await;
    let errors: Vec<_> = report
        .failed
        .iter()
        .map(|failed| (failed.index, &failed.error))
        .collect();
    assert!(
        matches!(errors[..], [(0, Error::ShutDown), (1, Error::ShutDown)]),
        "{errors:?}"
    );
}

#[test]
fn without_a_runtime_it_says_so() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let process = runtime.block_on(Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build());
    let process = process.unwrap();
    let report = encx_test_support::at_once(process.warm_up([context("a")])).unwrap();
    assert!(matches!(report.failed[0].error, Error::NoRuntime), "{report:?}");
}
