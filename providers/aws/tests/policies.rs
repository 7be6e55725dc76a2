//! The policies, as they are, and what is in none of them.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use encx_aws::policy::{IdentityPolicy, KeyPolicy, PolicyError};
use serde_json::Value;

use crate::common::arn;
use crate::common::scripted::{ARN, MRK};

const ACCOUNT: &str = "111122223333";

fn role(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{name}")
}

/// Every policy that there is, by the name of its file in `tests/policies`.
fn all() -> Vec<(&'static str, Value)> {
    let (kek, mrk) = (arn(ARN), arn(MRK));
    let key = KeyPolicy::new(ACCOUNT).unwrap();
    let named = key
        .clone()
        .administrator(role("key-admin"))
        .user(role("shop"))
        .user(role("billing"))
        .lifecycle_user(role("rewrap"));
    let limited = key
        .clone()
        .user(role("shop"))
        .user_where(role("logs"), [("purpose", "logs"), ("encx:usage", "data")])
        .and_then(|policy| policy.user_where(role("billing"), [("purpose", "billing"), ("purpose", "pii")]))
        .and_then(|policy| policy.user_where(role("audit"), [("encx:usage", "data"), ("purpose", "logs")]));
    let conditional = IdentityPolicy::service([&kek])
        .and_then(|policy| policy.only_where("purpose", "pii"))
        .and_then(|policy| policy.only_where("purpose", "billing"))
        .and_then(|policy| policy.only_where("encx:usage", "data"));
    vec![
        (
            "service",
            IdentityPolicy::service([&mrk, &kek, &kek]).unwrap().to_json(),
        ),
        ("service-conditional", conditional.unwrap().to_json()),
        ("lifecycle", IdentityPolicy::lifecycle([&kek]).unwrap().to_json()),
        (
            "administrator",
            IdentityPolicy::administrator(ACCOUNT).unwrap().to_json(),
        ),
        ("key", named.to_json()),
        ("key-conditional", limited.unwrap().to_json()),
        ("key-delegating", key.let_identity_policies_decide().to_json()),
    ]
}

#[test]
fn policies_are_what_was_reviewed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/policies");
    for (name, policy) in all() {
        let path = format!("{folder}/{name}.json");
        if std::env::var_os("ENCX_UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, format!("{policy:#}\n")).unwrap();
        }
        // Compared as values: the order of an object's keys is a feature of serde_json that others may switch on.
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        let expected: Value = serde_json::from_str(&expected).unwrap_or_default();
        assert_eq!(
            policy, expected,
            "{path}: if this is meant, review the change, and set ENCX_UPDATE_SNAPSHOTS=1"
        );
    }
}

/// Lists the actions of a policy that a condition or nothing limits.
fn actions(policy: &Value) -> Vec<String> {
    let statements = policy["Statement"].as_array().unwrap();
    let actions = statements
        .iter()
        .flat_map(|statement| match &statement["Action"] {
            Value::Array(actions) => actions.clone(),
            one => vec![one.clone()],
        });
    actions
        .map(|action| action.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn no_policy_lets_anybody_disable_or_delete_a_key() {
    for (name, policy) in all() {
        let text = policy.to_string();
        assert!(
            !text.contains("NotAction") && !text.contains("\"Deny\""),
            "{name}"
        );
        for action in actions(&policy) {
            assert!(
                !action.contains(['*', '?']),
                "{name} allows whatever fits `{action}`"
            );
            for never in [
                "Schedule",
                "Disable",
                "Delete",
                "CreateGrant",
                "ImportKeyMaterial",
            ] {
                assert!(!action.contains(never), "{name} allows {action}");
            }
        }
    }
}

#[test]
fn whoever_administers_uses_no_key_and_whoever_uses_administers_none() {
    let of = |name| {
        let (_, policy) = all().into_iter().find(|(found, _)| *found == name).unwrap();
        actions(&policy)
    };
    let uses = ["Encrypt", "Decrypt", "GenerateDataKey", "ReEncrypt"];
    let administers = of("administrator");
    assert!(
        administers
            .iter()
            .all(|action| !uses.iter().any(|using| action.contains(using)))
    );
    let mut service = of("service");
    service.sort();
    assert_eq!(service, ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"]);
    let mut lifecycle = of("lifecycle");
    lifecycle.retain(|action| !service.contains(action));
    assert_eq!(lifecycle, ["kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let service = || IdentityPolicy::service([&arn(ARN)]).unwrap();
    assert_eq!(
        service().only_where("encx:key", "1"),
        Err(PolicyError::VariesPerKey)
    );
    let key = || KeyPolicy::new(ACCOUNT).unwrap();
    assert_eq!(
        key().user_where(role("shop"), [("purpose", "pii"), ("encx:key", "1")]),
        Err(PolicyError::VariesPerKey)
    );
    assert_eq!(
        key().user_where(role("shop"), [("purpose", "pii"); 0]),
        Err(PolicyError::NoPairs)
    );
    let admin = IdentityPolicy::administrator(ACCOUNT).unwrap();
    assert_eq!(
        admin.only_where("purpose", "pii"),
        Err(PolicyError::NotForAdministrators)
    );
    assert!(matches!(
        IdentityPolicy::service([&arn("alias/app")]),
        Err(PolicyError::NotAnArn { .. })
    ));
    assert_eq!(IdentityPolicy::service([]), Err(PolicyError::NoKeks));
    for account in ["", "*", "11112222333", "1111222233334", "11112222333a"] {
        assert!(matches!(
            KeyPolicy::new(account),
            Err(PolicyError::NotAnAccount { .. })
        ));
    }
}
