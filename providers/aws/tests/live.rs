//! Against AWS itself, only on request: `TEST_KMS_KEY_ID=arn:… AWS_REGION=… cargo test -p encx-aws --test live -- --ignored`.
//!
//! Needs credentials with `IdentityPolicy::lifecycle` for the key. It creates and changes no key; a run costs about
//! thirty requests.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use encx::keys::{DataKeyId, KeyUsage};
use encx::kms::{DataKey, KekId, KekState, KeyManagementService, KmsContext, KmsErrorKind};
use encx::{Crypto, EncryptionContext, Field};
use encx_aws::AwsKms;
use encx_testkit::MemoryKeyStore;

const SSN: Field = Field::new("users", "ssn");

async fn kms() -> (AwsKms, KekId) {
    let variable = "TEST_KMS_KEY_ID";
    let kek = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} has to name a key of AWS KMS"));
    let kms = AwsKms::builder().default_kek(&kek).build().await.unwrap();
    (kms, KekId::new(kek).unwrap())
}

fn context(tenant: &str) -> EncryptionContext {
    EncryptionContext::builder()
        .pair("tenantId", tenant)
        .pair("purpose", "encx-live-test")
        .build()
        .unwrap()
}

fn pairs(tenant: &str) -> KmsContext {
    let id = DataKeyId::generate(1_767_225_600_000, None).unwrap();
    KmsContext::new(&context(tenant), KeyUsage::Data, id)
}

#[tokio::test]
#[ignore = "calls AWS: set TEST_KMS_KEY_ID and AWS_REGION"]
async fn aws_keeps_what_moto_promises() {
    let (kms, kek) = kms().await;
    let described = kms.describe_kek(&kek).await.unwrap();
    assert_eq!(described.state, KekState::Enabled);
    assert!(described.kek.as_str().starts_with("arn:"), "{described:?}");
    let (right, wrong) = (pairs("a"), pairs("b"));
    let made = kms.generate_data_key(&kek, &right).await.unwrap();
    assert_eq!(made.wrapped.kek, described.kek);
    assert_eq!(made.wrapped.kek_material, described.current_material);
    let again = kms.unwrap_key(&made.wrapped, &right).await.unwrap();
    assert_eq!(again.expose(), made.key.expose());
    let kind = |error: encx::kms::KmsError| error.kind();
    assert_eq!(
        kms.unwrap_key(&made.wrapped, &wrong)
            .await
            .map_err(kind)
            .unwrap_err(),
        KmsErrorKind::Integrity
    );
    let mut damaged = made.wrapped.clone();
    *damaged.ciphertext.last_mut().unwrap() ^= 1;
    assert_eq!(
        kms.unwrap_key(&damaged, &right).await.map_err(kind).unwrap_err(),
        KmsErrorKind::Integrity
    );
    let key = DataKey::generate().unwrap();
    for wrapped in [
        kms.wrap_key(&kek, &key, &right).await.unwrap(),
        kms.rewrap_key(&kms.wrap_key(&kek, &key, &right).await.unwrap(), &right, &kek)
            .await
            .unwrap(),
    ] {
        assert_eq!(
            kms.unwrap_key(&wrapped, &right).await.unwrap().expose(),
            key.expose()
        );
    }
    let moved = kms.rewrap_key(&made.wrapped, &wrong, &kek).await.map_err(kind);
    assert_eq!(moved.unwrap_err(), KmsErrorKind::Integrity);
}

#[tokio::test]
#[ignore = "calls AWS: set TEST_KMS_KEY_ID and AWS_REGION"]
async fn a_value_goes_to_aws_and_back() {
    let (kms, _) = kms().await;
    let store = MemoryKeyStore::new();
    let crypto = Crypto::builder(kms.clone(), store.clone()).build().await.unwrap();
    let sealed = crypto.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    let cold = Crypto::builder(kms, store).build().await.unwrap();
    assert_eq!(
        cold.decrypt(&context("a"), &sealed, SSN.row(1))
            .await
            .unwrap()
            .as_bytes(),
        b"x"
    );
}
