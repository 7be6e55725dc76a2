//! Least privilege as JSON: what a service may do, who moves keys, who administers them, and the policy of the key itself.
//!
//! None of these policies has `kms:ScheduleKeyDeletion` or `kms:DisableKey`, and none has a wildcard among its actions. Who is to
//! delete a key gets that elsewhere, for that day.
//!
//! ```
//! use encx::kms::KekId;
//! use encx_aws::policy::IdentityPolicy;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kek = KekId::new("arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")?;
//! let policy = IdentityPolicy::service([&kek])?.only_where("purpose", "pii")?;
//! println!("{policy}");
//! # Ok(())
//! # }
//! ```
//!
//! # Grants
//!
//! AWS KMS sees the pairs of the encryption context, and three of encx's own. Of these `encx:key` is another one for each data key,
//! so that a grant must use `EncryptionContextSubset`: with `EncryptionContextEquals` it would fit no key or a single one.
//! Conditions of policies name each pair by itself, and are not affected.

mod difference;

use std::collections::BTreeMap;
use std::fmt;

use encx_core::key::KekId;
use serde_json::{Value, json};

pub use self::difference::PolicyDifference;
use crate::arn::KeyArn;

/// What a service calls that encrypts and decrypts.
const SERVICE: &[&str] = &["kms:Decrypt", "kms:GenerateDataKey"];

/// What moving keys to another KEK and making several wraps of a key takes besides.
const LIFECYCLE: &[&str] = &["kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo"];

/// What has no encryption context, and so cannot be subject to conditions on it.
const DESCRIBE: &str = "kms:DescribeKey";

/// What an administrator does to one key.
///
/// `EnableKey` and `CancelKeyDeletion` only undo what nobody here may do.
const ADMINISTER: &[&str] = &[
    "kms:CancelKeyDeletion",
    "kms:DescribeKey",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListKeyRotations",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:ReplicateKey",
    "kms:RotateKeyOnDemand",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateKeyDescription",
    "kms:UpdatePrimaryRegion",
];

/// What an administrator does to a key and an alias together.
const ALIASES: &[&str] = &["kms:CreateAlias", "kms:UpdateAlias"];

/// A policy for a role or a user.
///
/// Prints as the JSON that IAM takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityPolicy {
    kind: Kind,
    /// ARNs of keys; of an administrator, the account.
    resources: Vec<String>,
    pairs: Pairs,
    partition: String,
}

/// Pairs of an encryption context that are allowed: the values by their key.
type Pairs = BTreeMap<String, Vec<String>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Administrator,
    Lifecycle,
    Service,
}

impl IdentityPolicy {
    /// Lets a service make data keys, unwrap them, and ask what an alias stands for.
    ///
    /// A multi-region key is named once for each region in which it is used.
    ///
    /// # Errors
    ///
    /// [`PolicyError::NotAnArn`] for a KEK that is not named by its key's ARN: a policy does not see through aliases.
    pub fn service<'a>(keks: impl IntoIterator<Item = &'a KekId>) -> Result<Self, PolicyError> {
        Self::for_keks(Kind::Service, keks)
    }

    /// Lets a job move keys to another KEK, and wrap a key under several; and all that a service may do.
    ///
    /// A service whose KEK rule demands several wraps of each key needs this one, too.
    ///
    /// # Errors
    ///
    /// As for [`service`](Self::service).
    pub fn lifecycle<'a>(keks: impl IntoIterator<Item = &'a KekId>) -> Result<Self, PolicyError> {
        Self::for_keks(Kind::Lifecycle, keks)
    }

    /// Lets an administrator create and manage an account's keys and aliases: never use, disable or delete them.
    ///
    /// # Errors
    ///
    /// [`PolicyError::NotAnAccount`] if `account` is not twelve digits.
    pub fn administrator(account: &str) -> Result<Self, PolicyError> {
        let resources = vec![check_account(account)?.to_owned()];
        Ok(Self {
            kind: Kind::Administrator,
            resources,
            pairs: BTreeMap::new(),
            partition: "aws".to_owned(),
        })
    }

    fn for_keks<'a>(kind: Kind, keks: impl IntoIterator<Item = &'a KekId>) -> Result<Self, PolicyError> {
        let mut resources = Vec::new();
        for kek in keks {
            match KeyArn::parse(kek.as_str()) {
                Some(arn) => resources.push(arn.to_string()),
                None => {
                    return Err(PolicyError::NotAnArn {
                        name: kek.to_string(),
                    });
                }
            }
        }
        resources.sort();
        resources.dedup();
        if resources.is_empty() {
            return Err(PolicyError::NoKeks);
        }
        Ok(Self {
            kind,
            resources,
            pairs: BTreeMap::new(),
            partition: "aws".to_owned(),
        })
    }

    /// Sets the partition of an administrator's account, such as `aws-cn`. Default: `aws`. Keys name their own.
    #[must_use]
    pub fn partition(mut self, partition: impl Into<String>) -> Self {
        self.partition = partition.into();
        self
    }

    /// Allows it only under an encryption context with this pair. The same key again allows a further value.
    ///
    /// Within one account AWS allows what the key policy *or* an identity policy allows. Where the key's policy names the
    /// role without a condition, as [`KeyPolicy::user`] does, this limits nothing: use
    /// [`KeyPolicy::let_identity_policies_decide`] and name no user, or [`KeyPolicy::user_where`].
    ///
    /// # Errors
    ///
    /// [`PolicyError::VariesPerKey`] for `encx:key`; [`PolicyError::NotForAdministrators`], who use no context.
    pub fn only_where(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, PolicyError> {
        if self.kind == Kind::Administrator {
            return Err(PolicyError::NotForAdministrators);
        }
        add_pair(&mut self.pairs, key.into(), value.into())?;
        Ok(self)
    }

    /// Returns the policy document.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let statements = match (self.kind, &self.resources[..]) {
            (Kind::Administrator, [account]) => administrator_statements(&self.partition, account),
            (Kind::Service, _) => self.statements(SERVICE),
            _ => self.statements(&sorted(&[SERVICE, LIFECYCLE])),
        };
        document(&statements)
    }

    fn statements(&self, actions: &[&str]) -> Vec<Value> {
        let statement = |sid, actions: &[&str]| json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": self.resources });
        let mut wrap = statement("EncxUseKeys", actions);
        if !self.pairs.is_empty() {
            wrap["Condition"] = condition(&self.pairs);
        }
        vec![wrap, statement("EncxDescribeKeys", &[DESCRIBE])]
    }
}

/// The policy of a key itself.
///
/// The account may always administer its key, so that nobody is locked out of it. Who uses it is named here, or, after
/// [`let_identity_policies_decide`](Self::let_identity_policies_decide), by identity policies.
///
/// Within one account AWS allows what either of the two allows: a condition in one is void if the other allows the same
/// without it. A role of another account needs both.
///
/// Prints as the JSON that AWS KMS takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPolicy {
    partition: String,
    account: String,
    administrators: Vec<String>,
    users: Vec<String>,
    /// Users by the pairs under which they are.
    users_where: BTreeMap<Pairs, Vec<String>>,
    lifecycle_users: Vec<String>,
    delegates: bool,
}

impl KeyPolicy {
    /// Begins a policy that lets the account administer the key, and nobody use it.
    ///
    /// # Errors
    ///
    /// [`PolicyError::NotAnAccount`] if `account` is not twelve digits.
    pub fn new(account: &str) -> Result<Self, PolicyError> {
        Ok(Self {
            partition: "aws".to_owned(),
            account: check_account(account)?.to_owned(),
            administrators: Vec::new(),
            users: Vec::new(),
            users_where: BTreeMap::new(),
            lifecycle_users: Vec::new(),
            delegates: false,
        })
    }

    /// Sets the partition, such as `aws-cn`. Default: `aws`.
    #[must_use]
    pub fn partition(mut self, partition: impl Into<String>) -> Self {
        self.partition = partition.into();
        self
    }

    /// Lets a role or a user, by its ARN, administer the key: never use it.
    #[must_use]
    pub fn administrator(mut self, principal: impl Into<String>) -> Self {
        self.administrators.push(principal.into());
        self
    }

    /// Lets a role or a user, by its ARN, make and unwrap data keys, under any encryption context.
    ///
    /// A condition in the identity policy of a role that stands here limits nothing, see
    /// [`user_where`](Self::user_where).
    #[must_use]
    pub fn user(mut self, principal: impl Into<String>) -> Self {
        self.users.push(principal.into());
        self
    }

    /// Lets a role or a user, by its ARN, make and unwrap data keys under encryption contexts with all of these pairs. A
    /// key that stands there again allows a further value.
    ///
    /// Within one account AWS allows what the key policy *or* an identity policy allows: the condition has to stand
    /// wherever the role is allowed anything, so name it neither in [`user`](Self::user) nor in an identity policy without one.
    ///
    /// # Errors
    ///
    /// [`PolicyError::VariesPerKey`] for `encx:key`; [`PolicyError::NoPairs`] if there are none.
    pub fn user_where<K: Into<String>, V: Into<String>>(
        mut self,
        principal: impl Into<String>,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, PolicyError> {
        let mut found = Pairs::new();
        for (key, value) in pairs {
            add_pair(&mut found, key.into(), value.into())?;
        }
        if found.is_empty() {
            return Err(PolicyError::NoPairs);
        }
        self.users_where.entry(found).or_default().push(principal.into());
        Ok(self)
    }

    /// Lets a role or a user, by its ARN, move keys from and to this one, and all that a user may do.
    #[must_use]
    pub fn lifecycle_user(mut self, principal: impl Into<String>) -> Self {
        self.lifecycle_users.push(principal.into());
        self
    }

    /// Lets the account's identity policies decide who uses the key, besides those who are named here.
    #[must_use]
    pub fn let_identity_policies_decide(mut self) -> Self {
        self.delegates = true;
        self
    }

    /// Returns the policy document.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let root = format!("arn:{}:iam::{}:root", self.partition, self.account);
        let statement = |sid: &str, principals: &[String], actions: &[&str]| {
            let mut principals = principals.to_vec();
            principals.sort();
            principals.dedup();
            json!({
                "Sid": sid,
                "Effect": "Allow",
                "Principal": { "AWS": principals },
                "Action": actions,
                "Resource": "*",
            })
        };
        let administer = sorted(&[ADMINISTER, ALIASES]);
        let service = sorted(&[SERVICE, &[DESCRIBE]]);
        let lifecycle = sorted(&[SERVICE, LIFECYCLE, &[DESCRIBE]]);
        let root = [root];
        let mut statements = vec![statement("EncxAccountAdministers", &root, &administer)];
        if self.delegates {
            statements.push(statement("EncxIdentityPoliciesDecide", &root, &lifecycle));
        }
        for (sid, principals, actions) in [
            ("EncxAdministrators", &self.administrators, &administer),
            ("EncxUsers", &self.users, &service),
            ("EncxLifecycleUsers", &self.lifecycle_users, &lifecycle),
        ] {
            if !principals.is_empty() {
                statements.push(statement(sid, principals, actions));
            }
        }
        for (at, (pairs, principals)) in self.users_where.iter().enumerate() {
            let mut uses = statement(&format!("EncxUsersWhere{}", at + 1), principals, SERVICE);
            uses["Condition"] = condition(pairs);
            statements.push(uses);
        }
        if !self.users_where.is_empty() {
            let principals = self.users_where.values().flatten().cloned().collect::<Vec<_>>();
            statements.push(statement("EncxUsersWhereDescribe", &principals, &[DESCRIBE]));
        }
        document(&statements)
    }
}

fn add_pair(pairs: &mut Pairs, key: String, value: String) -> Result<(), PolicyError> {
    if key == "encx:key" {
        return Err(PolicyError::VariesPerKey);
    }
    let values = pairs.entry(key).or_default();
    if !values.contains(&value) {
        values.push(value);
    }
    Ok(())
}

fn condition(pairs: &Pairs) -> Value {
    let pairs = pairs.iter();
    let conditions = pairs.map(|(key, values)| (format!("kms:EncryptionContext:{key}"), json!(values)));
    json!({ "StringEquals": Value::Object(conditions.collect()) })
}

fn administrator_statements(partition: &str, account: &str) -> Vec<Value> {
    let keys = format!("arn:{partition}:kms:*:{account}:key/*");
    let aliases = format!("arn:{partition}:kms:*:{account}:alias/*");
    vec![
        // There is no key yet to name, and lists are of all.
        json!({
            "Sid": "EncxCreateKeys",
            "Effect": "Allow",
            "Action": ["kms:CreateKey", "kms:ListAliases", "kms:ListKeys"],
            "Resource": "*",
        }),
        json!({ "Sid": "EncxAdministerKeys", "Effect": "Allow", "Action": ADMINISTER, "Resource": keys }),
        json!({ "Sid": "EncxAliases", "Effect": "Allow", "Action": ALIASES, "Resource": [keys, aliases] }),
        // AWS KMS makes this role with the first multi-region key of an account, to keep replicas alike.
        json!({
            "Sid": "EncxMultiRegionKeys",
            "Effect": "Allow",
            "Action": "iam:CreateServiceLinkedRole",
            "Resource": format!("arn:{partition}:iam::{account}:role/aws-service-role/mrk.kms.amazonaws.com/*"),
            "Condition": { "StringEquals": { "iam:AWSServiceName": "mrk.kms.amazonaws.com" } },
        }),
    ]
}

fn document(statements: &[Value]) -> Value {
    json!({ "Version": "2012-10-17", "Statement": statements })
}

fn sorted<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    let mut all = parts.concat();
    all.sort_unstable();
    all
}

fn check_account(account: &str) -> Result<&str, PolicyError> {
    if account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(account);
    }
    Err(PolicyError::NotAnAccount {
        account: account.to_owned(),
    })
}

impl fmt::Display for IdentityPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.to_json())
    }
}

impl fmt::Display for KeyPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.to_json())
    }
}

/// Says why a policy cannot be made.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No KEK was named.
    #[error("a policy for keys names at least one")]
    NoKeks,
    /// A condition has no pair, and so would be none.
    #[error("a user under a condition needs at least one pair of the encryption context")]
    NoPairs,
    /// Conditions on the encryption context would allow an administrator nothing.
    #[error("administrators use no encryption context, so no condition on it can hold")]
    NotForAdministrators,
    /// This is no account.
    #[error("`{account}` is no AWS account: twelve digits")]
    NotAnAccount {
        /// What was given.
        account: String,
    },
    /// A KEK is not named by its key's ARN.
    #[error("`{name}` is not the ARN of a key; policies do not see through aliases")]
    NotAnArn {
        /// What was given.
        name: String,
    },
    /// The pair is another one for each data key.
    #[error("`encx:key` is another one for each data key, so a condition on it would allow one key or none")]
    VariesPerKey,
}

impl fmt::Debug for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encx_core::causes::debug_error(self, f)
    }
}
