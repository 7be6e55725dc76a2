//! The policies: their exact form, and what none of them contains.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use encx_aws::policy::{ANY_CONTEXT_OF_ENCX, IdentityPolicy, KeyPolicy, PolicyError};
use serde_json::Value;

use crate::common::arn;
use crate::common::scripted::{ARN, MRK};

const ACCOUNT: &str = "111122223333";

fn role(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{name}")
}

/// Every policy, by the name of its file in `tests/policies`.
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
        (
            "key-delegating",
            key.clone().let_identity_policies_decide().to_json(),
        ),
        ("key-context", guarded(key).unwrap().to_json()),
        ("auditor", IdentityPolicy::auditor([&kek]).unwrap().to_json()),
    ]
}

/// All kinds of users of a key, each limited to a context of encx.
fn guarded(key: KeyPolicy) -> Result<KeyPolicy, PolicyError> {
    let pairs = [("purpose", "pii"), ("purpose", "billing")];
    key.administrator(role("key-admin"))
        .auditor(role("audit"))
        .key_deleter(role("terraform"))
        .user_where(role("shop"), ANY_CONTEXT_OF_ENCX)?
        .lifecycle_user_where(role("rewrap"), ANY_CONTEXT_OF_ENCX)?
        .let_identity_policies_decide_where(pairs)
}

#[test]
fn policies_are_what_was_reviewed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/policies");
    for (name, policy) in all() {
        let path = format!("{folder}/{name}.json");
        if std::env::var_os("ENCX_UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, format!("{policy:#}\n")).unwrap();
        }
        // Compared as values: the order of an object's keys depends on a feature of serde_json that other crates may
        // enable.
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        let expected: Value = serde_json::from_str(&expected).unwrap_or_default();
        assert_eq!(
            policy, expected,
            "{path}: if this is meant, review the change, and set ENCX_UPDATE_SNAPSHOTS=1"
        );
    }
}

/// Lists the actions of a policy, limited by a condition or not.
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
fn no_policy_disables_a_key_and_only_a_deleter_deletes_one() {
    for (name, policy) in all() {
        let text = policy.to_string();
        assert!(
            !text.contains("NotAction") && !text.contains("\"Deny\""),
            "{name}"
        );
        for action in actions(&policy) {
            assert!(
                !action.contains(['*', '?']),
                "{name} allows everything that fits `{action}`"
            );
            for never in ["Disable", "CreateGrant", "ImportKeyMaterial", "GrantToken"] {
                assert!(!action.contains(never), "{name} allows {action}");
            }
        }
        // Only one statement grants deletion, to the named principals.
        for statement in policy["Statement"].as_array().unwrap() {
            let text = statement["Action"].to_string();
            let deletes = text.contains("Schedule") || text.contains("Delete");
            assert_eq!(deletes, statement["Sid"] == "EncxDeleters", "{name}: {statement}");
        }
    }
}

/// A condition that AWS passes without a context would have no effect: no policy has `ForAllValues` or the operators
/// with `IfExists`.
#[test]
fn a_user_under_a_condition_does_nothing_without_a_context() {
    for (name, policy) in all() {
        let text = policy.to_string();
        assert!(
            !text.contains("ForAllValues") && !text.contains("IfExists"),
            "{name}"
        );
    }
    let policy = guarded(KeyPolicy::new(ACCOUNT).unwrap()).unwrap();
    policy.check().unwrap();
    for statement in policy.to_json()["Statement"].as_array().unwrap() {
        let uses = ["Encrypt", "Decrypt", "GenerateDataKey", "ReEncrypt"];
        let is_use = uses
            .iter()
            .any(|using| statement["Action"].to_string().contains(using));
        let condition = &statement["Condition"]["StringEquals"];
        assert_eq!(is_use, condition.is_object(), "{statement}");
        for key in condition.as_object().into_iter().flatten().map(|(key, _)| key) {
            assert!(key.starts_with("kms:EncryptionContext:"), "{statement}");
        }
    }
}

/// In every policy the account can change the policy: it cannot be locked out.
#[test]
fn the_account_is_never_locked_out() {
    for (name, policy) in all().into_iter().filter(|(name, _)| name.starts_with("key")) {
        let first = &policy["Statement"][0];
        let root = format!("arn:aws:iam::{ACCOUNT}:root");
        assert_eq!(first["Principal"]["AWS"], serde_json::json!([root]), "{name}");
        assert!(first["Action"].to_string().contains("kms:PutKeyPolicy"), "{name}");
        assert!(first["Condition"].is_null(), "{name}");
    }
}

#[test]
fn who_manages_uses_nothing_and_every_principal_is_one() {
    let key = || KeyPolicy::new(ACCOUNT).unwrap();
    for (policy, error) in [
        (
            key().administrator(role("a")).user(role("a")),
            PolicyError::ManagesAndUses { principal: role("a") },
        ),
        (
            key().key_deleter(role("a")).lifecycle_user(role("a")),
            PolicyError::ManagesAndUses { principal: role("a") },
        ),
        (
            key()
                .administrator(role("a"))
                .user_where(role("a"), ANY_CONTEXT_OF_ENCX)
                .unwrap(),
            PolicyError::ManagesAndUses { principal: role("a") },
        ),
        (
            key()
                .user(role("a"))
                .user_where(role("a"), [("purpose", "pii")])
                .unwrap(),
            PolicyError::VoidCondition { principal: role("a") },
        ),
    ] {
        assert_eq!(policy.check(), Err(error));
    }
    for principal in [
        "*",
        ACCOUNT,
        "arn:aws:iam::111122223333:root",
        "arn:aws:iam::111122223333:role/",
        "arn:aws:iam::111122223333:role/*",
        "arn:aws:iam::1111:role/a",
        "arn:aws:sts::111122223333:assumed-role/a/b",
        "logs.amazonaws.com",
        "",
    ] {
        let refused = PolicyError::NotAPrincipal {
            principal: principal.to_owned(),
        };
        for policy in [
            key().user(principal),
            key().administrator(principal),
            key().auditor(principal),
        ] {
            assert_eq!(policy.check(), Err(refused.clone()));
        }
    }
    key()
        .user("arn:aws-cn:iam::444455556666:user/team/ada@example.com")
        .check()
        .unwrap();
}

#[test]
fn administrators_use_no_key_and_users_administer_none() {
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
    let auditor = IdentityPolicy::auditor([&arn(ARN)]).unwrap();
    assert_eq!(
        auditor.only_where("purpose", "pii"),
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
