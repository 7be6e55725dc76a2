//! The code of `docs/testing.md`.

use std::time::Duration;

use encx::keys::KeyState;
use encx::kms::KmsErrorKind;
use encx::store::StoreError;
use encx_testkit::Harness;

use encx::{Ciphertext, Crypto, EncryptionContext, Error, Field};

const DIAGNOSIS: Field = Field::new("patients", "diagnosis");

struct Patients {
    crypto: Crypto,
}

impl Patients {
    async fn seal(&self, tenant: &str, id: i64, diagnosis: &str) -> Result<Ciphertext, Error> {
        let context = EncryptionContext::builder().pair("tenantId", tenant).build()?;
        self.crypto.encrypt(&context, diagnosis, DIAGNOSIS.row(id)).await
    }

    async fn open(&self, tenant: &str, id: i64, sealed: &Ciphertext) -> Result<String, Error> {
        let context = EncryptionContext::builder().pair("tenantId", tenant).build()?;
        let opened = self.crypto.decrypt(&context, sealed, DIAGNOSIS.row(id)).await?;
        opened.into_string()
    }
}

#[tokio::test]
async fn the_second_request_does_not_call_the_kms() -> Result<(), Error> {
    let harness = Harness::new().await;
    let crypto = harness.crypto().clone();
    let sealed = Patients { crypto }.seal("acme", 1, "measles").await?;

    // Another process, with nothing in memory.
    let crypto = harness.process().await;
    let patients = Patients { crypto };
    harness.kms().reset_calls();
    patients.open("acme", 1, &sealed).await?;
    harness.assert_kms_calls(1);
    patients.open("acme", 1, &sealed).await?;
    patients.seal("acme", 2, "mumps").await?;
    harness.assert_kms_calls(1);
    Ok(())
}

#[tokio::test]
async fn while_the_kms_is_down_keys_serve_until_their_time_is_over() -> Result<(), Error> {
    let harness = Harness::new().await;
    let crypto = harness.crypto().clone();
    let patients = Patients { crypto };
    let sealed = patients.seal("acme", 1, "measles").await?;

    harness.kms().fail_until_cleared(KmsErrorKind::Unavailable);
    harness.clock().advance(Duration::from_secs(50 * 60)).await;
    patients.open("acme", 1, &sealed).await?;

    harness.clock().advance(Duration::from_secs(10 * 60)).await;
    let error = patients.open("acme", 1, &sealed).await.unwrap_err();
    assert!(error.is_retryable()); // such as 503 with Retry-After

    harness.kms().clear_faults();
    harness.clock().advance(Duration::from_secs(60)).await; // the circuit breaker asks again
    assert_eq!(patients.open("acme", 1, &sealed).await?, "measles");
    Ok(())
}

#[tokio::test]
async fn an_outage_of_four_hours_is_not_noticed_in_known_tenants() -> Result<(), Error> {
    let outage = Duration::from_secs(4 * 3600);
    let harness = Harness::with(move |settings| settings.stale_if_unavailable(outage)).await;
    let crypto = harness.crypto().clone();
    let patients = Patients { crypto };
    let sealed = patients.seal("acme", 1, "measles").await?;
    patients.open("acme", 1, &sealed).await?;

    harness.kms().fail_until_cleared(KmsErrorKind::Unavailable);
    harness.clock().advance(Duration::from_secs(3 * 3600)).await;
    patients.open("acme", 1, &sealed).await?;
    assert!(patients.seal("umbrella", 1, "mumps").await.is_err());
    Ok(())
}

#[tokio::test]
async fn two_requests_wait_for_one_call_of_a_slow_kms() -> Result<(), Error> {
    let harness = Harness::new().await;
    let crypto = harness.crypto().clone();
    let patients = Patients { crypto };
    harness.kms().set_latency(Duration::from_secs(2));

    let one = patients.seal("acme", 1, "measles");
    let two = patients.seal("acme", 2, "mumps");
    let (one, two, ()) = tokio::join!(one, two, harness.clock().advance(Duration::from_secs(3)));
    one?;
    two?;
    harness.assert_kms_calls(1);
    Ok(())
}

#[tokio::test]
async fn a_suspended_key_reads_no_more() -> Result<(), Error> {
    let harness = Harness::new().await;
    let crypto = harness.crypto().clone();
    let patients = Patients { crypto };
    let sealed = patients.seal("acme", 1, "measles").await?;

    let acme = EncryptionContext::builder().pair("tenantId", "acme").build()?;
    let tool = harness.process().await.key_manager();
    let id = tool.list(&acme).await?[0].id;
    tool.set_state(&acme, id, KeyState::Suspended).await?;

    harness.clock().advance(Duration::from_secs(60)).await;
    let error = patients.open("acme", 1, &sealed).await.unwrap_err();
    assert!(matches!(error, Error::Suspended { .. }));
    Ok(())
}

#[tokio::test]
async fn a_rotation_goes_unnoticed() -> Result<(), Error> {
    let harness = Harness::new().await;
    let crypto = harness.crypto().clone();
    let patients = Patients { crypto };
    let before = patients.seal("acme", 1, "measles").await?;

    let acme = EncryptionContext::builder().pair("tenantId", "acme").build()?;
    harness.process().await.key_manager().rotate(&acme).await?;
    harness.clock().advance(Duration::from_secs(60)).await;

    let after = patients.seal("acme", 2, "mumps").await?;
    assert_ne!(before.key_id(), after.key_id());
    assert_eq!(patients.open("acme", 1, &before).await?, "measles");
    assert!(patients.crypto.needs_reencryption(&acme, &before).await?);
    Ok(())
}

#[tokio::test]
async fn one_tenant_cannot_read_anothers() -> Result<(), Error> {
    let harness = Harness::new().await;
    let crypto = harness.crypto().clone();
    let patients = Patients { crypto };
    let sealed = patients.seal("acme", 1, "measles").await?;
    patients.seal("umbrella", 1, "mumps").await?;

    let error = patients.open("umbrella", 1, &sealed).await.unwrap_err();
    assert!(matches!(error, Error::UnknownKey { .. }));
    // A value copied into another row does not decrypt either.
    let error = patients.open("acme", 2, &sealed).await.unwrap_err();
    assert!(matches!(error, Error::Decrypt { .. }));
    Ok(())
}

#[tokio::test]
async fn without_the_key_store_known_tenants_go_on() -> Result<(), Error> {
    let harness = Harness::new().await;
    let crypto = harness.crypto().clone();
    let patients = Patients { crypto };
    let sealed = patients.seal("acme", 1, "measles").await?;

    let gone = StoreError::unavailable(std::io::Error::other("connection refused"));
    harness.store().fail_until_cleared(gone);
    patients.open("acme", 1, &sealed).await?;
    let error = patients.seal("umbrella", 1, "mumps").await.unwrap_err();
    assert!(error.is_retryable());
    Ok(())
}

#[tokio::test]
async fn two_processes_may_see_a_new_tenant_at_once() -> Result<(), Error> {
    let harness = Harness::new().await;
    let crypto = harness.crypto().clone();
    let patients = Patients { crypto };

    harness.lose_next_race(); // ours comes second, and uses the other's key
    let sealed = patients.seal("acme", 1, "measles").await?;
    assert_eq!(patients.open("acme", 1, &sealed).await?, "measles");
    Ok(())
}

#[test]
fn the_document_shows_this() {
    super::shown::assert_shown(include_str!("../../docs/testing.md"), include_str!("testing.rs"));
}
