//! A KEK's name is resolved once for any number of cold keys, and every request is counted.

use encx::{Crypto, CryptoBuilder, Field};
use encx_testkit::MemoryKeyStore;

use super::*;

const SSN: Field = Field::new("users", "ssn");
const TENANTS: usize = 64;

/// Answers `DescribeKey` slowly, so that all callers overlap, and denies rotation status.
async fn scripted() -> Scripted {
    let scripted = Scripted::start().await;
    let describes = json(&format!(
        r#"{{"KeyMetadata":{{"KeyId":"1","Arn":"{ARN}","KeyState":"Enabled"}}}}"#
    ));
    let late = describes.set_delay(Duration::from_millis(300));
    scripted.answer("DescribeKey", [late]).await;
    scripted
        .answer("GetKeyRotationStatus", [refusal(400, "AccessDeniedException")])
        .await;
    scripted.answer("GenerateDataKey", [answer_with(&KEY, ARN)]).await;
    scripted.answer("Decrypt", [answer_with(&KEY, ARN)]).await;
    scripted
}

async fn crypto(kms: &AwsKms, store: &MemoryKeyStore) -> Crypto {
    let builder: CryptoBuilder = Crypto::builder(kms.clone(), store.clone()).connect_lazily();
    builder.max_concurrent_kms_calls(TENANTS).build().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_tenants_ask_once_for_their_alias_and_all_requests_are_counted() {
    let (scripted, store) = (scripted().await, MemoryKeyStore::new());
    let kms = scripted.builder().default_kek("alias/app").build().await.unwrap();
    let service = crypto(&kms, &store).await;
    let mut sealed = Vec::new();
    for tenant in 0..TENANTS {
        let context = context(&tenant.to_string());
        sealed.push(service.encrypt(&context, "x", SSN.row(1)).await.unwrap());
    }
    let made = scripted.asked().await.len();
    assert_eq!(service.stats().kms_calls, made as u64);

    let cold = crypto(&kms, &store).await;
    let reads: Vec<_> = sealed
        .into_iter()
        .enumerate()
        .map(|(tenant, sealed)| {
            let cold = cold.clone();
            tokio::spawn(async move {
                let context = context(&tenant.to_string());
                cold.decrypt(&context, &sealed, SSN.row(1)).await.map(drop)
            })
        })
        .collect();
    for read in reads {
        read.await.unwrap().unwrap();
    }
    assert_eq!(count(&scripted, "DescribeKey").await, 1);
    assert_eq!(count(&scripted, "GetKeyRotationStatus").await, 1);
    assert_eq!(count(&scripted, "Decrypt").await, TENANTS);
    let asked = scripted.asked().await.len();
    assert_eq!(
        cold.stats().kms_calls,
        (asked - made) as u64,
        "each request counts, and a call that shared another's answer does not"
    );
    let requests = kms.requests();
    assert_eq!(requests.values().sum::<u64>(), asked as u64, "{requests:?}");
    assert_eq!(requests["GetKeyRotationStatus"], 1);
}

#[tokio::test]
async fn repeated_requests_are_counted() {
    let scripted = Scripted::start().await;
    let answers = [refusal(400, "ThrottlingException"), answer_with(&KEY, ARN)];
    scripted.answer("GenerateDataKey", answers).await;
    let kms = scripted.builder().default_kek(ARN).build().await.unwrap();
    let service = crypto(&kms, &MemoryKeyStore::new()).await;
    service.encrypt(&context("a"), "x", SSN.row(1)).await.unwrap();
    assert_eq!(service.stats().kms_calls, 2);
    assert_eq!(kms.requests()["GenerateDataKey"], 2);
}

#[tokio::test]
async fn a_refused_question_about_a_kek_is_shared_and_asked_again_later() {
    let scripted = Scripted::start().await;
    let refused = refusal(400, "AccessDeniedException").set_delay(Duration::from_millis(200));
    scripted.answer("DescribeKey", [refused]).await;
    let kms = scripted.builder().build().await.unwrap();
    for round in 1..=2 {
        let kek = arn("alias/app");
        let (one, other) = tokio::join!(kms.describe_kek(&kek), kms.describe_kek(&kek));
        for outcome in [one, other] {
            assert_eq!(outcome.unwrap_err().kind(), KmsErrorKind::AccessDenied);
        }
        assert_eq!(count(&scripted, "DescribeKey").await, round);
    }
}

/// Answers for whichever key a request names, slowly enough that all callers overlap.
async fn of_any_key(scripted: &Scripted) {
    let answer = |request: &wiremock::Request| {
        let asked: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let target = request.headers["x-amz-target"].to_str().unwrap();
        match target.trim_start_matches("TrentService.") {
            "DescribeKey" => {
                let arn = &asked["KeyId"];
                let body = format!(r#"{{"KeyMetadata":{{"KeyId":"1","Arn":{arn},"KeyState":"Enabled"}}}}"#);
                json(&body).set_delay(Duration::from_millis(300))
            }
            "ReEncrypt" => answer_re_encrypt(
                asked["SourceKeyId"].as_str().unwrap(),
                asked["DestinationKeyId"].as_str().unwrap(),
            ),
            "GetKeyRotationStatus" => refusal(400, "AccessDeniedException"),
            _ => answer_with(&KEY, ARN),
        }
    };
    let any = wiremock::Mock::given(wiremock::matchers::any());
    any.respond_with(answer).mount(&scripted.server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rewraps_at_once_ask_once_for_each_of_their_keks() {
    const CONTEXTS: usize = 8;
    let (scripted, store) = (Scripted::start().await, MemoryKeyStore::new());
    of_any_key(&scripted).await;
    let kms = scripted.builder().default_kek(ARN).build().await.unwrap();
    let service = crypto(&kms, &store).await;
    for tenant in 0..CONTEXTS {
        let context = context(&tenant.to_string());
        service.encrypt(&context, "x", SSN.row(1)).await.unwrap();
    }
    let builder = Crypto::builder(kms.clone(), store.clone()).connect_lazily();
    let moving = builder.kek(OTHER_ARN).also_unwrap(ARN).build().await.unwrap();
    let rewraps: Vec<_> = (0..CONTEXTS)
        .map(|tenant| {
            let manager = moving.key_manager();
            tokio::spawn(async move { manager.rewrap(&context(&tenant.to_string())).await.unwrap().len() })
        })
        .collect();
    for rewrap in rewraps {
        assert_eq!(rewrap.await.unwrap(), 1);
    }
    assert_eq!(count(&scripted, "ReEncrypt").await, CONTEXTS);
    assert_eq!(count(&scripted, "DescribeKey").await, 2);
    assert!(count(&scripted, "GetKeyRotationStatus").await <= 2);
    let asked = scripted.asked().await.len() - CONTEXTS;
    assert_eq!(moving.stats().kms_calls, asked as u64);
}
