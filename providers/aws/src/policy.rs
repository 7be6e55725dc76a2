//! Least-privilege policies as JSON: for services, for jobs that move keys, for administrators and auditors, and the
//! policy of the key itself.
//!
//! None of these policies has `kms:DisableKey`, and none has a wildcard among its actions. Only
//! [`KeyPolicy::key_deleter`] grants `kms:ScheduleKeyDeletion`, so that no key is deleted by accident.
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
//! AWS KMS sees the pairs of the encryption context, and three of encx's own. `encx:key` differs for each data key, so
//! a grant must use `EncryptionContextSubset`: with `EncryptionContextEquals` it would match one key or none.
//! Conditions in policies name individual pairs, and are not affected.

mod difference;

use std::collections::BTreeMap;
use std::fmt;

use encx_core::key::KekId;
use serde_json::{Value, json};

pub use self::difference::PolicyDifference;
use crate::arn::KeyArn;

/// Actions of a service that encrypts and decrypts.
const SERVICE: &[&str] = &["kms:Decrypt", "kms:GenerateDataKey"];

/// Additional actions for moving keys to another KEK and for several wraps per key.
const LIFECYCLE: &[&str] = &["kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo"];

/// Has no encryption context, so conditions on it cannot apply.
const DESCRIBE: &str = "kms:DescribeKey";

/// An administrator's actions on one key.
///
/// `EnableKey` and `CancelKeyDeletion` only undo actions that these policies never grant an administrator.
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

/// What an auditor reads: evidence of a key's state, policy, rotation and tags.
const AUDIT: &[&str] = &[
    "kms:DescribeKey",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListResourceTags",
];

/// Actions for deleting a key and its alias, as `terraform destroy` does.
const DELETE: &[&str] = &["kms:DeleteAlias", "kms:DescribeKey", "kms:ScheduleKeyDeletion"];

/// The condition on the encryption context that matches everything that encx sends, and nothing without a context.
///
/// For users who are not limited to a purpose or a tenant: requests that are not encx's are still refused.
///
/// ```
/// use encx_aws::policy::{ANY_CONTEXT_OF_ENCX, KeyPolicy};
///
/// # fn main() -> Result<(), encx_aws::policy::PolicyError> {
/// let policy = KeyPolicy::new("111122223333")?
///     .user_where("arn:aws:iam::111122223333:role/shop", ANY_CONTEXT_OF_ENCX)?;
/// # Ok(())
/// # }
/// ```
pub const ANY_CONTEXT_OF_ENCX: [(&str, &str); 1] = [("encx:v", "1")];

/// An administrator's actions on a key and an alias together.
const ALIASES: &[&str] = &["kms:CreateAlias", "kms:UpdateAlias"];

/// A policy for a role or a user.
///
/// Its `Display` is the JSON that IAM takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityPolicy {
    kind: Kind,
    /// ARNs of keys; of an administrator, the account.
    resources: Vec<String>,
    pairs: Pairs,
    partition: String,
}

/// Allowed pairs of an encryption context: the values by their key.
type Pairs = BTreeMap<String, Vec<String>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Administrator,
    Auditor,
    Lifecycle,
    Service,
}

impl IdentityPolicy {
    /// Lets a service create data keys, unwrap them, and resolve aliases.
    ///
    /// A multi-region key is named once for each region in which it is used.
    ///
    /// # Errors
    ///
    /// [`PolicyError::NotAnArn`] for a KEK that is not named by its key's ARN: a policy does not resolve aliases.
    pub fn service<'a>(keks: impl IntoIterator<Item = &'a KekId>) -> Result<Self, PolicyError> {
        Self::for_keks(Kind::Service, keks)
    }

    /// Lets a job move keys to another KEK, wrap a key under several, and do all that a service may.
    ///
    /// A service whose KEK rule requires several wraps per key needs this policy, too.
    ///
    /// # Errors
    ///
    /// As for [`service`](Self::service).
    pub fn lifecycle<'a>(keks: impl IntoIterator<Item = &'a KekId>) -> Result<Self, PolicyError> {
        Self::for_keks(Kind::Lifecycle, keks)
    }

    /// Lets an auditor read state, policy, rotation and tags of keys, but not use or change them.
    ///
    /// # Errors
    ///
    /// As for [`service`](Self::service).
    pub fn auditor<'a>(keks: impl IntoIterator<Item = &'a KekId>) -> Result<Self, PolicyError> {
        Self::for_keks(Kind::Auditor, keks)
    }

    /// Lets an administrator create and manage an account's keys and aliases, but not use, disable or delete them.
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

    /// Allows the actions only under an encryption context with this pair. Calling it again with the same key allows
    /// another value.
    ///
    /// Within one account, AWS allows what the key policy *or* an identity policy allows. If the key's policy names the
    /// role without a condition, as [`KeyPolicy::user`] does, this limits nothing: use
    /// [`KeyPolicy::let_identity_policies_decide`] and name no user, or [`KeyPolicy::user_where`].
    ///
    /// # Errors
    ///
    /// [`PolicyError::VariesPerKey`] for `encx:key`; [`PolicyError::NotForAdministrators`] for administrators and
    /// auditors, whose actions have no context.
    pub fn only_where(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, PolicyError> {
        if matches!(self.kind, Kind::Administrator | Kind::Auditor) {
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
            (Kind::Auditor, _) => vec![self.statement("EncxAuditKeys", AUDIT)],
            (Kind::Service, _) => self.statements(SERVICE),
            _ => self.statements(&sorted(&[SERVICE, LIFECYCLE])),
        };
        document(&statements)
    }

    fn statements(&self, actions: &[&str]) -> Vec<Value> {
        let mut wrap = self.statement("EncxUseKeys", actions);
        if !self.pairs.is_empty() {
            wrap["Condition"] = condition(&self.pairs);
        }
        vec![wrap, self.statement("EncxDescribeKeys", &[DESCRIBE])]
    }

    fn statement(&self, sid: &str, actions: &[&str]) -> Value {
        json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": self.resources })
    }
}

/// The policy of a key itself.
///
/// The account can always administer its key, so that it is never locked out. This policy names the users or, after
/// [`let_identity_policies_decide`](Self::let_identity_policies_decide), defers to identity policies.
///
/// Within one account, AWS allows what either policy allows: a condition in one has no effect if the other allows the
/// same without it. A role of another account needs both.
///
/// Its `Display` is the JSON that AWS KMS takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPolicy {
    partition: String,
    account: String,
    administrators: Vec<String>,
    auditors: Vec<String>,
    deleters: Vec<String>,
    users: Vec<String>,
    /// Users by the pairs that they must use.
    users_where: BTreeMap<Pairs, Vec<String>>,
    lifecycle_users: Vec<String>,
    lifecycle_users_where: BTreeMap<Pairs, Vec<String>>,
    delegates: bool,
    /// The pairs under which identity policies decide.
    delegates_where: Vec<Pairs>,
}

impl KeyPolicy {
    /// Creates a policy that lets the account administer the key, and grants its use to no principal.
    ///
    /// # Errors
    ///
    /// [`PolicyError::NotAnAccount`] if `account` is not twelve digits.
    pub fn new(account: &str) -> Result<Self, PolicyError> {
        Ok(Self {
            partition: "aws".to_owned(),
            account: check_account(account)?.to_owned(),
            administrators: Vec::new(),
            auditors: Vec::new(),
            deleters: Vec::new(),
            users: Vec::new(),
            users_where: BTreeMap::new(),
            lifecycle_users: Vec::new(),
            lifecycle_users_where: BTreeMap::new(),
            delegates: false,
            delegates_where: Vec::new(),
        })
    }

    /// Sets the partition, such as `aws-cn`. Default: `aws`.
    #[must_use]
    pub fn partition(mut self, partition: impl Into<String>) -> Self {
        self.partition = partition.into();
        self
    }

    /// Lets a role or a user, by its ARN, administer the key but not use it.
    #[must_use]
    pub fn administrator(mut self, principal: impl Into<String>) -> Self {
        self.administrators.push(principal.into());
        self
    }

    /// Lets a role or a user, by its ARN, create and unwrap data keys, under any encryption context.
    ///
    /// A condition in the identity policy of this role limits nothing; see [`user_where`](Self::user_where).
    #[must_use]
    pub fn user(mut self, principal: impl Into<String>) -> Self {
        self.users.push(principal.into());
        self
    }

    /// Lets a role or a user, by its ARN, create and unwrap data keys under encryption contexts with all of these
    /// pairs. A repeated key allows another value.
    ///
    /// Within one account, AWS allows what the key policy *or* an identity policy allows, so every policy that allows
    /// the role must have the condition. Do not also name the role in [`user`](Self::user), or in an identity policy
    /// without the condition.
    ///
    /// # Errors
    ///
    /// [`PolicyError::VariesPerKey`] for `encx:key`; [`PolicyError::NoPairs`] if there are none.
    pub fn user_where<K: Into<String>, V: Into<String>>(
        mut self,
        principal: impl Into<String>,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, PolicyError> {
        let pairs = collect_pairs(pairs)?;
        self.users_where.entry(pairs).or_default().push(principal.into());
        Ok(self)
    }

    /// Lets a role or a user, by its ARN, move keys from and to this one, and do all that a user may.
    #[must_use]
    pub fn lifecycle_user(mut self, principal: impl Into<String>) -> Self {
        self.lifecycle_users.push(principal.into());
        self
    }

    /// Lets a role or a user, by its ARN, move keys from and to this one under encryption contexts with all of these pairs, as
    /// [`user_where`](Self::user_where) does for users.
    ///
    /// # Errors
    ///
    /// As for [`user_where`](Self::user_where).
    pub fn lifecycle_user_where<K: Into<String>, V: Into<String>>(
        mut self,
        principal: impl Into<String>,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, PolicyError> {
        let pairs = collect_pairs(pairs)?;
        let users = self.lifecycle_users_where.entry(pairs).or_default();
        users.push(principal.into());
        Ok(self)
    }

    /// Lets a role or a user, by its ARN, read the key's state, policy, rotation and tags.
    #[must_use]
    pub fn auditor(mut self, principal: impl Into<String>) -> Self {
        self.auditors.push(principal.into());
        self
    }

    /// Lets a role or a user, by its ARN, schedule the key's deletion and delete its alias: the only grant of it.
    ///
    /// <div class="warning">
    ///
    /// Deleting a KMS key loses all data that was encrypted under it. Name a principal only when you intend to delete
    /// the key.
    ///
    /// </div>
    #[must_use]
    pub fn key_deleter(mut self, principal: impl Into<String>) -> Self {
        self.deleters.push(principal.into());
        self
    }

    /// Lets the account's identity policies also decide who uses the key.
    #[must_use]
    pub fn let_identity_policies_decide(mut self) -> Self {
        self.delegates = true;
        self
    }

    /// Lets the account's identity policies decide who uses the key under encryption contexts with all of these pairs.
    ///
    /// # Errors
    ///
    /// As for [`user_where`](Self::user_where).
    pub fn let_identity_policies_decide_where<K: Into<String>, V: Into<String>>(
        mut self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, PolicyError> {
        let pairs = collect_pairs(pairs)?;
        if !self.delegates_where.contains(&pairs) {
            self.delegates_where.push(pairs);
        }
        Ok(self)
    }

    /// Checks the principals: roles and users by their ARNs, none of which both manages and uses the key, or is allowed
    /// the same with and without a condition.
    ///
    /// [`KmsAdmin`](crate::admin::KmsAdmin) sends no policy that fails this check.
    ///
    /// # Errors
    ///
    /// [`PolicyError::NotAPrincipal`]; [`PolicyError::ManagesAndUses`]; [`PolicyError::VoidCondition`].
    pub fn check(&self) -> Result<(), PolicyError> {
        let managers = || self.administrators.iter().chain(&self.deleters);
        let free = || self.users.iter().chain(&self.lifecycle_users);
        let limited = || {
            let users = self.users_where.values().flatten();
            users.chain(self.lifecycle_users_where.values().flatten())
        };
        let mut all = managers().chain(&self.auditors).chain(free()).chain(limited());
        if let Some(principal) = all.find(|principal| !is_principal(principal)) {
            return Err(PolicyError::NotAPrincipal {
                principal: principal.clone(),
            });
        }
        let is_managing = |principal: &&String| managers().any(|managing| managing == *principal);
        if let Some(principal) = free().chain(limited()).find(is_managing) {
            return Err(PolicyError::ManagesAndUses {
                principal: principal.clone(),
            });
        }
        let is_free = |principal: &&String| free().any(|free| free == *principal);
        if let Some(principal) = limited().find(is_free) {
            return Err(PolicyError::VoidCondition {
                principal: principal.clone(),
            });
        }
        Ok(())
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
            ("EncxAuditors", &self.auditors, &AUDIT.to_vec()),
            ("EncxUsers", &self.users, &service),
            ("EncxLifecycleUsers", &self.lifecycle_users, &lifecycle),
        ] {
            if !principals.is_empty() {
                statements.push(statement(sid, principals, actions));
            }
        }
        let moves = sorted(&[SERVICE, LIFECYCLE]);
        let where_ = |sid: &str, at: usize, principals: &[String], actions: &[&str], pairs: &Pairs| {
            let mut uses = statement(&format!("{sid}Where{}", at + 1), principals, actions);
            uses["Condition"] = condition(pairs);
            uses
        };
        for (sid, users, actions) in [
            ("EncxUsers", &self.users_where, SERVICE),
            ("EncxLifecycleUsers", &self.lifecycle_users_where, &moves[..]),
        ] {
            let users = users.iter().enumerate();
            statements
                .extend(users.map(|(at, (pairs, principals))| where_(sid, at, principals, actions, pairs)));
        }
        let limited = self
            .users_where
            .values()
            .chain(self.lifecycle_users_where.values());
        let limited: Vec<_> = limited.flatten().cloned().collect();
        if !limited.is_empty() {
            statements.push(statement("EncxUsersWhereDescribe", &limited, &[DESCRIBE]));
        }
        // The first statement already lets the account describe its key.
        let decided = self.delegates_where.iter().enumerate();
        statements.extend(
            decided.map(|(at, pairs)| where_("EncxIdentityPoliciesDecide", at, &root, &moves, pairs)),
        );
        if !self.deleters.is_empty() {
            statements.push(statement("EncxDeleters", &self.deleters, DELETE));
        }
        document(&statements)
    }
}

/// Tells whether a principal is the ARN of a role or a user: not an account, a service or a wildcard, which would admit
/// more than one.
fn is_principal(principal: &str) -> bool {
    let mut parts = principal.splitn(6, ':');
    let (arn, partition) = (parts.next(), parts.next().unwrap_or_default());
    let (service, region) = (parts.next(), parts.next());
    let (account, resource) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let name = resource
        .strip_prefix("role/")
        .or_else(|| resource.strip_prefix("user/"));
    let is_named = |name: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_/-".contains(&byte);
        !name.is_empty() && name.bytes().all(is_allowed)
    };
    let is_partition = partition
        .strip_prefix("aws")
        .is_some_and(|rest| rest.bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase()));
    arn == Some("arn")
        && is_partition
        && service == Some("iam")
        && region == Some("")
        && check_account(account).is_ok()
        && name.is_some_and(is_named)
}

fn collect_pairs<K: Into<String>, V: Into<String>>(
    pairs: impl IntoIterator<Item = (K, V)>,
) -> Result<Pairs, PolicyError> {
    let mut found = Pairs::new();
    for (key, value) in pairs {
        add_pair(&mut found, key.into(), value.into())?;
    }
    if found.is_empty() {
        return Err(PolicyError::NoPairs);
    }
    Ok(found)
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
        // There is no key yet to name, and lists cover all keys.
        json!({
            "Sid": "EncxCreateKeys",
            "Effect": "Allow",
            "Action": ["kms:CreateKey", "kms:ListAliases", "kms:ListKeys"],
            "Resource": "*",
        }),
        json!({ "Sid": "EncxAdministerKeys", "Effect": "Allow", "Action": ADMINISTER, "Resource": keys }),
        json!({ "Sid": "EncxAliases", "Effect": "Allow", "Action": ALIASES, "Resource": [keys, aliases] }),
        // AWS KMS creates this role with the first multi-region key of an account, to synchronize replicas.
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

/// Says why a policy is invalid.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A principal both manages and uses the key.
    #[error(
        "`{principal}` both manages and uses the key; give one of the two to another role, as an administrator uses no key and a user \
         administers none"
    )]
    ManagesAndUses {
        /// The role or user.
        principal: String,
    },
    /// No KEK was named.
    #[error("a policy for keys names at least one")]
    NoKeks,
    /// A condition has no pair, and would have no effect.
    #[error("a user under a condition needs at least one pair of the encryption context")]
    NoPairs,
    /// Conditions on the encryption context would grant an administrator nothing.
    #[error("administrators and auditors use no encryption context, so no condition on it can hold")]
    NotForAdministrators,
    /// This is not an account.
    #[error("`{account}` is no AWS account: twelve digits")]
    NotAnAccount {
        /// What was given.
        account: String,
    },
    /// A principal is neither a role nor a user.
    #[error(
        "`{principal}` is no role and no user; write its ARN, such as `arn:aws:iam::111122223333:role/shop`, for a key policy lets in no \
         wildcard and no whole account"
    )]
    NotAPrincipal {
        /// What was given.
        principal: String,
    },
    /// A KEK is not named by its key's ARN.
    #[error("`{name}` is not the ARN of a key; policies do not see through aliases")]
    NotAnArn {
        /// What was given.
        name: String,
    },
    /// The pair differs for each data key.
    #[error("`encx:key` is another one for each data key, so a condition on it would allow one key or none")]
    VariesPerKey,
    /// A principal is allowed the same with and without a condition.
    #[error("the condition for `{principal}` is void, as it is named without one, too; name it once")]
    VoidCondition {
        /// The role or user.
        principal: String,
    },
}

impl fmt::Debug for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encx_core::causes::debug_error(self, f)
    }
}
