//! What a new key policy changes, for people to read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// The changes of a new policy, one readable line each: `arn:… may kms:Decrypt`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyDifference {
    /// What is allowed now and would no longer be.
    pub lost: Vec<String>,
    /// What would be allowed and is not now.
    pub gained: Vec<String>,
}

impl PolicyDifference {
    /// Tells whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.gained.is_empty()
    }

    pub(crate) fn between(now: &Value, new: &Value) -> Self {
        let (now, new) = (said(now), said(new));
        Self {
            lost: now.difference(&new).cloned().collect(),
            gained: new.difference(&now).cloned().collect(),
        }
    }
}

/// Lists the grants of a policy, one line each. The order of lists, and whether a single item is a list, do not matter:
/// AWS returns policies in other forms than it was given.
fn said(policy: &Value) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for statement in list(&policy["Statement"]) {
        match plain(statement) {
            Some(found) => lines.extend(found),
            // Denials and other statements are listed unchanged.
            None => {
                lines.insert(sorted_lists(statement).to_string());
            }
        }
    }
    lines
}

/// Splits an ordinary statement of a key policy into grants.
fn plain(statement: &Value) -> Option<Vec<String>> {
    const KNOWN: &[&str] = &["Action", "Condition", "Effect", "Principal", "Resource", "Sid"];
    let fields = statement.as_object()?;
    let principals = fields.get("Principal")?.as_object()?;
    let is_plain = fields.keys().all(|field| KNOWN.contains(&field.as_str()))
        && fields.get("Effect")? == "Allow"
        && list(fields.get("Resource")?) == [&json!("*")]
        && principals.len() == 1;
    if !is_plain {
        return None;
    }
    let only = match fields.get("Condition") {
        Some(condition) => format!(" where {}", sorted_lists(condition)),
        None => String::new(),
    };
    let mut lines = Vec::new();
    for principal in list(principals.get("AWS")?) {
        for action in list(fields.get("Action")?) {
            lines.push(format!("{} may {}{only}", principal.as_str()?, action.as_str()?));
        }
    }
    Some(lines)
}

/// Treats a single item as a list of one.
fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(values) => values.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    }
}

/// Sorts every list, and turns every text into a list of one.
fn sorted_lists(value: &Value) -> Value {
    match value {
        Value::Array(values) => {
            let mut values = values.clone();
            values.sort_by_key(Value::to_string);
            Value::Array(values)
        }
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> = fields.iter().collect();
            let fields = fields
                .into_iter()
                .map(|(name, value)| (name.clone(), sorted_lists(value)));
            Value::Object(fields.collect())
        }
        one => json!([one]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

    use super::*;
    use crate::policy::KeyPolicy;

    const ROLE: &str = "arn:aws:iam::111122223333:role/";

    fn key() -> KeyPolicy {
        KeyPolicy::new("111122223333").unwrap()
    }

    #[test]
    fn a_policy_that_aws_gives_back_in_another_form_is_the_same() {
        let put = key()
            .user(format!("{ROLE}a"))
            .user(format!("{ROLE}b"))
            .user_where(format!("{ROLE}c"), [("purpose", "pii"), ("purpose", "logs")])
            .unwrap()
            .to_json();
        let mut found = put.clone();
        let statements = found["Statement"].as_array_mut().unwrap();
        statements.reverse();
        for statement in statements {
            for at in [
                "/Principal/AWS",
                "/Action",
                "/Condition/StringEquals/kms:EncryptionContext:purpose",
            ] {
                let Some(list) = statement.pointer_mut(at) else {
                    continue;
                };
                let values = list.as_array_mut().unwrap();
                values.reverse();
                if let [one] = &values[..] {
                    *list = one.clone();
                }
            }
        }
        assert_ne!(found, put);
        assert!(PolicyDifference::between(&found, &put).is_empty());
        // Other statements count as well, in any form.
        let denial = |actions: Value| json!({ "Statement": { "Effect": "Deny", "Principal": "*", "Action": actions, "Resource": "*" } });
        let (one, same) = (denial(json!("kms:Decrypt")), denial(json!(["kms:Decrypt"])));
        assert!(PolicyDifference::between(&one, &same).is_empty());
        assert!(!PolicyDifference::between(&one, &json!({})).is_empty());
    }

    #[test]
    fn a_difference_names_who_loses_and_gains_what() {
        let (now, new) = (key().user(format!("{ROLE}a")), key().user(format!("{ROLE}b")));
        let difference = PolicyDifference::between(&now.to_json(), &new.to_json());
        let lines = |name| {
            ["Decrypt", "DescribeKey", "GenerateDataKey"]
                .map(|action| format!("{ROLE}{name} may kms:{action}"))
        };
        assert_eq!(
            (&difference.lost[..], &difference.gained[..]),
            (&lines("a")[..], &lines("b")[..])
        );
        // Removing a condition is a gain, not a no-op.
        let limited = key()
            .user_where(format!("{ROLE}b"), [("purpose", "pii")])
            .unwrap();
        let difference = PolicyDifference::between(&limited.to_json(), &new.to_json());
        assert_eq!((difference.lost.len(), difference.gained.len()), (2, 2));
        assert!(difference.lost[0].contains(" where {"), "{difference:?}");
    }
}
