//! The example `provision`: what it checks before the first change, what it reports on failure, and what it leaves
//! unchanged.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use encx_aws::admin::KmsAdmin;
use encx_aws::policy::KeyPolicy;
use wiremock::ResponseTemplate;

use crate::common::provision::{ACCOUNT, run};
use crate::common::scripted::{Scripted, json, refusal};
use crate::common::{AWAY, HOME, builder_at, client, server_url};

const KEY: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const OTHER: &str = "arn:aws:kms:eu-west-1:123456789012:key/ffffffff-12ab-34cd-56ef-1234567890ab";

fn role(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{name}")
}

/// The answer of `DescribeKey`.
fn described(arn: &str, state: &str, usage: &str, multi_region: bool) -> ResponseTemplate {
    json(&format!(
        r#"{{"KeyMetadata":{{"KeyId":"1","Arn":"{arn}","KeyState":"{state}","KeyUsage":"{usage}","MultiRegion":{multi_region}}}}}"#
    ))
}

fn missing() -> ResponseTemplate {
    refusal(400, "NotFoundException")
}

async fn describing(answers: impl Into<Vec<ResponseTemplate>>) -> Scripted {
    let scripted = Scripted::start().await;
    scripted.answer("DescribeKey", answers).await;
    // A different policy from the one to set.
    let policy = json(r#"{"Policy":"{\"Statement\":[]}"}"#);
    scripted.answer("GetKeyPolicy", [policy]).await;
    scripted
}

/// Returns the requests to an endpoint that change something.
async fn changes(scripted: &Scripted) -> Vec<String> {
    let asked = scripted.asked().await.into_iter().map(|(operation, _)| operation);
    let is_change = |operation: &String| {
        let reads = ["Describe", "Get", "List"];
        !reads.iter().any(|reads| operation.starts_with(reads))
    };
    asked.filter(is_change).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_before_anything_is_changed() {
    let (shop, alias) = (role("shop"), ["--alias", "alias/app"]);
    let enabled = |multi_region| described(KEY, "Enabled", "ENCRYPT_DECRYPT", multi_region);
    let elsewhere = described(OTHER, "Enabled", "ENCRYPT_DECRYPT", true);
    let with = |more: &[&str]| -> Vec<String> {
        let all = alias.iter().chain(more);
        all.map(|argument| (*argument).to_owned()).collect()
    };
    let nothing = || vec![missing()];
    for (arguments, home, away, part) in [
        (
            vec!["--alias".to_owned(), "shop".to_owned()],
            nothing(),
            nothing(),
            "begins with `alias/`",
        ),
        (
            vec!["--alias".to_owned(), "alias/aws/shop".to_owned()],
            nothing(),
            nothing(),
            "are AWS's own",
        ),
        (
            vec!["--alias".to_owned(), "alias/sh op".to_owned()],
            nothing(),
            nothing(),
            "letters, digits",
        ),
        (
            with(&["--user", "*"]),
            nothing(),
            nothing(),
            "`*` is no role and no user",
        ),
        (
            with(&["--user", &shop, "--administrator", &shop]),
            nothing(),
            nothing(),
            "both manages and uses",
        ),
        (
            with(&["--rotation-days", "89"]),
            nothing(),
            nothing(),
            "90 to 2560",
        ),
        (
            with(&["--tag", "aws:x=y"]),
            nothing(),
            nothing(),
            "does not begin with `aws:`",
        ),
        (with(&["--context", "purpose"]), nothing(), nothing(), "KEY=VALUE"),
        (
            with(&["--context", "encx:key=1", "--user", &shop]),
            nothing(),
            nothing(),
            "another one for each data key",
        ),
        (
            with(&["--replica", "frankfurt"]),
            nothing(),
            nothing(),
            "no region of AWS",
        ),
        (
            with(&["--replica", HOME]),
            nothing(),
            nothing(),
            "the region of the key itself",
        ),
        (with(&["--key", KEY]), nothing(), nothing(), "there is no key"),
        (
            with(&["--replica", AWAY, "--replace-policy"]),
            vec![enabled(false)],
            nothing(),
            "a key of one region",
        ),
        (
            with(&["--replica", AWAY]),
            nothing(),
            vec![elsewhere.clone()],
            "stands for arn:aws:kms:eu-west-1",
        ),
        (
            with(&["--replica", AWAY, "--replace-policy"]),
            vec![enabled(true)],
            vec![elsewhere],
            "stands for arn:aws:kms:eu-west-1",
        ),
        (
            with(&["--user", &shop]),
            vec![enabled(false)],
            nothing(),
            "add --replace-policy",
        ),
        (
            with(&["--replace-policy"]),
            vec![described(KEY, "Disabled", "ENCRYPT_DECRYPT", false)],
            nothing(),
            "enable-key",
        ),
        (
            with(&["--replace-policy"]),
            vec![described(KEY, "PendingDeletion", "ENCRYPT_DECRYPT", false)],
            nothing(),
            "cancel-key-deletion` and then `aws kms enable-key`",
        ),
        (
            with(&["--replace-policy"]),
            vec![described(KEY, "Enabled", "GENERATE_VERIFY_MAC", false)],
            nothing(),
            "asymmetric or HMAC",
        ),
        (
            with(&["--replace-policy"]),
            vec![described(
                &KEY.replace("1234567", "7777777"),
                "Enabled",
                "ENCRYPT_DECRYPT",
                false,
            )],
            nothing(),
            "of another account",
        ),
        (
            with(&[]),
            vec![refusal(400, "AccessDeniedException")],
            nothing(),
            "must allow kms:DescribeKey",
        ),
    ] {
        let (home, away) = (describing(home).await, describing(away).await);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let run = run(&home.server.uri(), &away.server.uri(), &arguments).await;
        assert!(!run.succeeded, "{arguments:?}: {run:?}");
        assert!(
            run.err.contains(part),
            "{arguments:?}: `{part}` is not in: {}",
            run.err
        );
        assert!(
            run.err.starts_with("provision: ") && run.err.ends_with("Nothing was changed.\n"),
            "{}",
            run.err
        );
        assert!(
            !run.err.contains("Error {") && !run.err.contains('"'),
            "raw Debug: {}",
            run.err
        );
        assert!(!run.out.contains("For the service"), "{}", run.out);
        assert_eq!(
            (changes(&home).await, changes(&away).await),
            (vec![], vec![]),
            "{arguments:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_says_what_exists_now_and_how_to_go_on() {
    let scripted = describing([missing()]).await;
    scripted
        .answer("CreateKey", [described(KEY, "Enabled", "ENCRYPT_DECRYPT", false)])
        .await;
    scripted
        .answer("CreateAlias", [refusal(400, "LimitExceededException")])
        .await;
    let url = scripted.server.uri();
    let run = run(&url, &url, &["--alias", "alias/app"]).await;
    assert!(!run.succeeded);
    for part in [
        "kms:CreateAlias failed for alias/app",
        "LimitExceededException",
        &format!("key {KEY}: created"),
        &format!("run the same command again with --key {KEY}"),
        "--rotation-days 90",
    ] {
        assert!(run.err.contains(part), "`{part}` is not in: {}", run.err);
    }
    assert_eq!(changes(&scripted).await, ["CreateKey", "CreateAlias"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_interrupted_run_left_is_taken_up_by_its_arn() {
    let url = server_url();
    let kms = KmsAdmin::new(&builder_at(&url).build().await.unwrap());
    let policy = KeyPolicy::new(ACCOUNT).unwrap().let_identity_policies_decide();
    let new = encx_aws::admin::NewKek::new().policy(policy);
    let kek = kms.create_kek(&new).await.unwrap();
    let alias = format!("alias/taken-up-{}", std::process::id());
    let arguments = ["--alias", &alias, "--key", kek.as_str(), "--rotation-days", "120"];
    let first = run(&url, &url, &arguments).await;
    assert!(first.succeeded, "{first:?}");
    assert_eq!(kms.find_kek(&alias).await.unwrap(), Some(kek.clone()));
    let rotation = kms.rotation(&kek).await.unwrap();
    assert_eq!(rotation, encx_aws::admin::RotationPeriod::days(120));
    let again = run(&url, &url, &arguments).await;
    assert!(
        again.succeeded && again.out.contains("nothing was changed"),
        "{again:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_key_that_exists_only_what_is_named_is_changed() {
    let (url, alias) = (server_url(), format!("alias/named-{}", std::process::id()));
    let first = run(&url, &url, &["--alias", &alias]).await;
    assert!(first.succeeded, "{first:?}");
    let kms = KmsAdmin::new(&builder_at(&url).build().await.unwrap());
    let kek = kms.find_kek(&alias).await.unwrap().unwrap();
    // As Terraform may have created it.
    let client = client(HOME);
    client
        .disable_key_rotation()
        .key_id(kek.as_str())
        .send()
        .await
        .unwrap();
    let second = run(&url, &url, &["--alias", &alias]).await;
    assert!(
        second.succeeded && second.out.contains("nothing was changed"),
        "{second:?}"
    );
    assert!(
        second.out.contains("--rotation-days 90 switches it on"),
        "{second:?}"
    );
    assert_eq!(kms.rotation(&kek).await.unwrap(), None);
    let named = ["--alias", &alias, "--rotation-days", "180", "--tag", "team=shop"];
    let third = run(&url, &url, &named).await;
    assert!(third.succeeded, "{third:?}");
    for part in [
        "automatic rotation: created",
        "tags: changed",
        "policy of the key: unchanged",
    ] {
        assert!(third.out.contains(part), "{}", third.out);
    }
    let tags = client
        .list_resource_tags()
        .key_id(kek.as_str())
        .send()
        .await
        .unwrap();
    let tags: Vec<_> = tags
        .tags()
        .iter()
        .map(|tag| (tag.tag_key(), tag.tag_value()))
        .collect();
    assert!(
        tags.contains(&("encx", "kek")) && tags.contains(&("team", "shop")),
        "{tags:?}"
    );
    let fourth = run(&url, &url, &named).await;
    assert!(fourth.out.contains("nothing was changed"), "{fourth:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_has_ids_arns_changes_and_the_service_s_settings() {
    let (url, alias) = (server_url(), format!("alias/json-{}", std::process::id()));
    let arguments = [
        "--alias",
        &alias,
        "--replica",
        AWAY,
        "--format",
        "json",
        "--tag",
        "team=shop",
    ];
    for changed in [true, false] {
        let run = run(&url, &url, &arguments).await;
        assert!(run.succeeded, "{run:?}");
        let said: serde_json::Value = serde_json::from_str(&run.out).unwrap();
        let arn = said["key_arn"].as_str().unwrap();
        assert_eq!(said["key_id"], arn.rsplit_once('/').unwrap().1);
        assert_eq!(said["alias_name"], *alias);
        assert_eq!(said["alias_arn"], format!("arn:aws:kms:{HOME}:{ACCOUNT}:{alias}"));
        assert_eq!(said["replicas"][0]["key_arn"], arn.replace(HOME, AWAY));
        assert_eq!(
            said["replicas"][0]["alias_arn"],
            format!("arn:aws:kms:{AWAY}:{ACCOUNT}:{alias}")
        );
        assert_eq!(said["encx_env"]["AWS_KMS_KEY_ID"], arn);
        assert_eq!(said["changed"], changed);
        assert!(said["identity_policy"]["Statement"].is_array(), "{said}");
        assert!(
            run.err.contains("key arn:aws:kms:"),
            "the talk is elsewhere: {}",
            run.err
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_stand_in_the_policy_of_the_key() {
    let (url, shop) = (server_url(), role("shop"));
    let kms = KmsAdmin::new(&builder_at(&url).build().await.unwrap());
    let key = || KeyPolicy::new(ACCOUNT).unwrap();
    let pairs = [("purpose", "pii"), ("purpose", "billing")];
    for (name, arguments, expected) in [
        (
            "pairs",
            vec![
                "--user",
                &*shop,
                "--context",
                "purpose=pii",
                "--context",
                "purpose=billing",
                "--enforce-context",
            ],
            key().user_where(&shop, pairs).unwrap(),
        ),
        (
            "any",
            vec!["--user", &*shop, "--enforce-context"],
            key().user_where(&shop, [("encx:v", "1")]).unwrap(),
        ),
        (
            "delegated",
            vec!["--enforce-context"],
            key()
                .let_identity_policies_decide_where([("encx:v", "1")])
                .unwrap(),
        ),
    ] {
        let alias = format!("alias/condition-{name}-{}", std::process::id());
        let run = run(&url, &url, &[&["--alias", &*alias], &arguments[..]].concat()).await;
        assert!(run.succeeded, "{run:?}");
        let kek = kms.find_kek(&alias).await.unwrap().unwrap();
        let difference = kms.compare_policy(&kek, &expected).await.unwrap();
        assert!(difference.is_empty(), "{name}: {difference:?}");
        assert_eq!(
            run.out.contains("\"kms:EncryptionContext:encx:v\""),
            name == "delegated",
            "{}",
            run.out
        );
    }
}
