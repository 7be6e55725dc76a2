//! Key administration against the KMS server.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use encx::kms::{KekState, KeyManagementService, KmsErrorKind};
use encx_aws::admin::{Change, KmsAdmin, NewKek, RotationPeriod};
use encx_aws::policy::KeyPolicy;

use crate::common::provision::{self, ACCOUNT};
use crate::common::proxy::Proxy;
use crate::common::scripted::{ARN, Scripted, refusal};
use crate::common::{AWAY, HOME, arn, builder_at, client, server_url};

#[test]
fn a_period_is_one_that_aws_takes() {
    for (days, valid) in [(0, false), (89, false), (90, true), (2560, true), (2561, false)] {
        assert_eq!(RotationPeriod::days(days).is_some(), valid, "{days}");
    }
    assert_eq!(RotationPeriod::days(90), Some(RotationPeriod::default()));
}

#[tokio::test]
async fn a_key_is_created_named_rotated_replicated_and_guarded() {
    let kms = builder_at(&server_url()).build().await.unwrap();
    let admin = KmsAdmin::new(&kms);
    let policy = KeyPolicy::new(ACCOUNT).unwrap();
    let new = NewKek::new()
        .description("for a test")
        .tag("team", "shop")
        .multi_region();
    let kek = admin.create_kek(&new.policy(policy.clone())).await.unwrap();
    let tags = client(HOME)
        .list_resource_tags()
        .key_id(kek.as_str())
        .send()
        .await
        .unwrap();
    assert_eq!(
        (tags.tags()[0].tag_key(), tags.tags()[0].tag_value()),
        ("team", "shop")
    );

    let described = kms.describe_kek(&kek).await.unwrap();
    assert_eq!((described.kek, described.state), (kek.clone(), KekState::Enabled));
    assert_eq!(
        (described.multi_region, described.rotation),
        (Some(true), Some(false))
    );
    for expected in [Change::Created, Change::Unchanged] {
        let period = RotationPeriod::default();
        assert_eq!(admin.rotate_automatically(&kek, period).await.unwrap(), expected);
    }
    let longer = RotationPeriod::days(180).unwrap();
    assert_eq!(
        admin.rotate_automatically(&kek, longer).await.unwrap(),
        Change::Changed
    );
    let described = kms.describe_kek(&kek).await.unwrap();
    assert_eq!(
        (described.rotation, described.rotation_days),
        (Some(true), Some(180))
    );
    admin.rotate_now(&kek).await.unwrap();
    let rotated = kms.describe_kek(&kek).await.unwrap();
    assert_ne!(rotated.current_material, described.current_material);

    let alias = format!("alias/admin-{}", std::process::id());
    assert_eq!(admin.find_kek(&alias).await.unwrap(), None);
    for expected in [Change::Created, Change::Unchanged] {
        assert_eq!(admin.set_alias(&alias, &kek).await.unwrap(), expected);
    }
    assert_eq!(admin.find_kek(&alias).await.unwrap(), Some(kek.clone()));
    let other = admin.create_kek(&NewKek::new()).await.unwrap();
    assert_eq!(admin.set_alias(&alias, &other).await.unwrap(), Change::Changed);
    assert_eq!(admin.find_kek(&alias).await.unwrap(), Some(other));

    assert_eq!(admin.set_policy(&kek, &policy).await.unwrap(), Change::Unchanged);
    let stricter = policy.user(format!("arn:aws:iam::{ACCOUNT}:role/shop"));
    for expected in [Change::Changed, Change::Unchanged] {
        assert_eq!(admin.set_policy(&kek, &stricter).await.unwrap(), expected);
    }

    for expected in [Change::Created, Change::Unchanged] {
        let (replica, change) = admin.replicate_kek(&kek, AWAY, Some(&stricter)).await.unwrap();
        assert_eq!(
            (replica.as_str(), change),
            (&*kek.as_str().replace(HOME, AWAY), expected)
        );
        // A replica lists the others, too.
        let (primary, change) = admin.replicate_kek(&replica, HOME, None).await.unwrap();
        assert_eq!((primary, change), (kek.clone(), Change::Unchanged));
    }
}

#[tokio::test]
async fn a_refusal_names_the_action() {
    let scripted = Scripted::start().await;
    scripted
        .answer("RotateKeyOnDemand", [refusal(400, "AccessDeniedException")])
        .await;
    scripted
        .answer("CreateKey", [refusal(400, "LimitExceededException")])
        .await;
    let admin = KmsAdmin::new(&scripted.builder().max_attempts(1).build().await.unwrap());
    let error = admin.rotate_now(&arn(ARN)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.action()),
        (KmsErrorKind::AccessDenied, "kms:RotateKeyOnDemand")
    );
    assert!(
        error.to_string().contains("must allow kms:RotateKeyOnDemand"),
        "{error}"
    );
    let error = admin.create_kek(&NewKek::new()).await.unwrap_err();
    assert_eq!(error.kind(), KmsErrorKind::LimitExceeded, "{error}");
}

#[tokio::test]
async fn states_are_told() {
    let kms = builder_at(&server_url()).build().await.unwrap();
    let kek = common::create_key(HOME).await;
    let client = client(HOME);
    client.disable_key().key_id(kek.as_str()).send().await.unwrap();
    assert_eq!(kms.describe_kek(&kek).await.unwrap().state, KekState::Disabled);
    client
        .schedule_key_deletion()
        .key_id(kek.as_str())
        .send()
        .await
        .unwrap();
    assert_eq!(
        kms.describe_kek(&kek).await.unwrap().state,
        KekState::PendingDeletion
    );
}

/// Runs the example `provision`, and returns whether it succeeded and its output.
async fn run_provision(url: &str, arguments: &[&str]) -> (bool, String) {
    let run = provision::run(url, url, arguments).await;
    (run.succeeded, run.out + &run.err)
}

fn role(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{name}")
}

async fn make(url: &str, alias: &str) -> String {
    let arguments = [
        "--alias",
        alias,
        "--user",
        &role("shop"),
        "--user",
        &role("billing"),
    ];
    let (success, said) = run_provision(url, &[&arguments[..], &["--replica", AWAY]].concat()).await;
    assert!(success, "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provisioning_forgets_no_user_in_silence() {
    let url = server_url();
    let alias = format!("alias/forgets-{}", std::process::id());
    let (shop, billing) = (role("shop"), role("billing"));
    let (success, said) = run_provision(&url, &["--alias", &alias, "--user", &shop]).await;
    assert!(success, "{said}");
    assert!(!said.contains("EncxUseKeys"), "its users are named: {said}");
    let other = ["--alias", &alias, "--user", &billing];
    let (success, said) = run_provision(&url, &other).await;
    assert!(!success && said.contains("--replace-policy"), "{said}");
    assert!(said.contains(&format!("- {shop} may kms:Decrypt")), "{said}");
    assert!(said.contains(&format!("+ {billing} may kms:Decrypt")), "{said}");
    let (success, said) = run_provision(&url, &["--alias", &alias, "--user", &shop]).await;
    assert!(success && said.contains("nothing was changed"), "{said}");
    let (success, said) = run_provision(&url, &[&other[..], &["--replace-policy"]].concat()).await;
    assert!(success && said.contains("policy of the key: changed"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_users_identity_policies_decide() {
    let alias = format!("alias/delegates-{}", std::process::id());
    let (success, said) = run_provision(&server_url(), &["--alias", &alias]).await;
    assert!(success && said.contains("EncxUseKeys"), "{said}");
    let kms = builder_at(&server_url()).build().await.unwrap();
    let admin = KmsAdmin::new(&kms);
    let kek = admin.find_kek(&alias).await.unwrap().unwrap();
    let delegating = KeyPolicy::new(ACCOUNT).unwrap().let_identity_policies_decide();
    let difference = admin.compare_policy(&kek, &delegating).await.unwrap();
    assert!(difference.is_empty(), "{difference:?}");
}

#[tokio::test]
async fn policies_are_printed_without_a_call() {
    for name in ["administrator", "key", "lifecycle", "service"] {
        let arguments = ["--kek", ARN, "--print-policy", name];
        let (success, said) = run_provision("http://127.0.0.1:1", &arguments).await;
        assert!(success, "{said}");
        let policy: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert!(policy["Statement"].is_array(), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provisioning_twice_changes_nothing_the_second_time() {
    let proxy = Proxy::start().await;
    let alias = format!("alias/provision-{}", std::process::id());
    let first = make(proxy.url(), &alias).await;
    assert!(first.contains("created"), "{first}");
    let calls = proxy.calls();
    for (call, count) in [
        ("CreateKey", 1),
        ("ReplicateKey", 1),
        ("CreateAlias", 2),
        ("EnableKeyRotation", 1),
    ] {
        assert_eq!(calls.get(call), Some(&count), "{calls:?}");
    }
    let second = make(proxy.url(), &alias).await;
    assert!(second.contains("nothing was changed"), "{second}");
    let changing: Vec<_> = proxy
        .calls()
        .into_keys()
        .filter(|call| !call.starts_with("Describe") && !call.starts_with("Get"))
        .collect();
    assert!(changing.is_empty(), "{changing:?}");
    // The variables that it prints work.
    let kms = builder_at(&server_url()).build().await.unwrap();
    let kek = KmsAdmin::new(&kms).find_kek(&alias).await.unwrap().unwrap();
    assert!(second.contains(kek.as_str()), "{second}");
    assert_eq!(kms.describe_kek(&kek).await.unwrap().rotation_days, Some(90));
}
