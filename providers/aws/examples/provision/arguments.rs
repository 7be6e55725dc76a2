//! Parses the command line, and builds the policies it describes.

use std::error::Error;

use encx::kms::KekId;
use encx_aws::admin::{RotationPeriod, check_alias};
use encx_aws::policy::{ANY_CONTEXT_OF_ENCX, IdentityPolicy, KeyPolicy, PolicyError};

/// The arguments.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) alias: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) users: Vec<String>,
    pub(crate) lifecycle_users: Vec<String>,
    pub(crate) administrators: Vec<String>,
    pub(crate) auditors: Vec<String>,
    pub(crate) key_deleters: Vec<String>,
    pub(crate) context: Vec<(String, String)>,
    pub(crate) replicas: Vec<String>,
    pub(crate) keks: Vec<KekId>,
    pub(crate) key: Option<KekId>,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) rotation: Option<RotationPeriod>,
    pub(crate) replace_policy: bool,
    pub(crate) print_policy: Option<String>,
    pub(crate) as_json: bool,
}

impl Arguments {
    /// Parses the command line, and checks everything that can be checked without AWS.
    pub(crate) fn parse(given: impl IntoIterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let (mut found, mut given) = (Self::default(), given.into_iter());
        while let Some(name) = given.next() {
            match &*name {
                "--enforce-context" => {
                    found.context.extend(own_context());
                    continue;
                }
                "--replace-policy" => {
                    found.replace_policy = true;
                    continue;
                }
                _ => {}
            }
            let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
            match &*name {
                "--account" => found.account = Some(value),
                "--administrator" => found.administrators.push(value),
                "--alias" => found.alias = Some(value),
                "--auditor" => found.auditors.push(value),
                "--context" => found.context.push(pair(&name, &value)?),
                "--format" => found.as_json = is_json(&value)?,
                "--kek" => found.keks.push(KekId::new(value)?),
                "--key" => found.key = Some(KekId::new(value)?),
                "--key-deleter" => found.key_deleters.push(value),
                "--lifecycle-user" => found.lifecycle_users.push(value),
                "--print-policy" => found.print_policy = Some(value),
                "--replica" => found.replicas.push(value),
                "--rotation-days" => found.rotation = Some(period(&value)?),
                "--tag" => found.tags.push(tag(&name, &value)?),
                "--user" => found.users.push(value),
                _ => return Err(format!("unknown argument {name}").into()),
            }
        }
        if found.context.len() > 1 {
            // Any other pair is stricter than this one, and implies it.
            found
                .context
                .retain(|pair| !own_context().any(|own| own == *pair));
        }
        Ok(found)
    }

    /// Returns the alias, if AWS KMS accepts it.
    pub(crate) fn alias(&self) -> Result<&str, Box<dyn Error>> {
        let alias = self.alias.as_deref().ok_or("--alias alias/… is needed")?;
        check_alias(alias)?;
        Ok(alias)
    }

    pub(crate) fn account(&self) -> Result<&str, &'static str> {
        let account = self.account.as_deref();
        account.ok_or("--account, twelve digits, is needed")
    }

    /// Builds the policy of the key, and checks its principals.
    pub(crate) fn key_policy(&self) -> Result<KeyPolicy, Box<dyn Error>> {
        let mut policy = KeyPolicy::new(self.account()?)?;
        for principal in &self.administrators {
            policy = policy.administrator(principal);
        }
        for principal in &self.auditors {
            policy = policy.auditor(principal);
        }
        for principal in &self.key_deleters {
            policy = policy.key_deleter(principal);
        }
        let context = || self.context.clone();
        for principal in &self.users {
            policy = match context() {
                pairs if pairs.is_empty() => policy.user(principal),
                pairs => policy.user_where(principal, pairs)?,
            };
        }
        for principal in &self.lifecycle_users {
            policy = match context() {
                pairs if pairs.is_empty() => policy.lifecycle_user(principal),
                pairs => policy.lifecycle_user_where(principal, pairs)?,
            };
        }
        if !self.names_users() {
            policy = match context() {
                pairs if pairs.is_empty() => policy.let_identity_policies_decide(),
                pairs => policy.let_identity_policies_decide_where(pairs)?,
            };
        }
        policy.check()?;
        Ok(policy)
    }

    /// Builds the identity policy for the service's role, if it needs one besides the key's policy.
    pub(crate) fn identity_policy(&self, keks: &[KekId]) -> Result<Option<IdentityPolicy>, Box<dyn Error>> {
        let account = format!("::{}:", self.account()?);
        let is_foreign = |user: &String| !user.contains(&account);
        if self.names_users() && !self.users.iter().any(is_foreign) {
            return Ok(None);
        }
        Ok(Some(self.limited(IdentityPolicy::service(keks)?)?))
    }

    /// Prints one policy by its name, without calling AWS.
    pub(crate) fn policy_named(&self, name: &str) -> Result<String, Box<dyn Error>> {
        Ok(match name {
            "administrator" => IdentityPolicy::administrator(self.account()?)?.to_string(),
            "auditor" => IdentityPolicy::auditor(&self.keks)?.to_string(),
            "key" => self.key_policy()?.to_string(),
            "lifecycle" => self.limited(IdentityPolicy::lifecycle(&self.keks)?)?.to_string(),
            "service" => self.limited(IdentityPolicy::service(&self.keks)?)?.to_string(),
            _ => {
                let names = "administrator, auditor, key, lifecycle, service";
                return Err(format!("there is no policy `{name}`: {names}").into());
            }
        })
    }

    fn limited(&self, policy: IdentityPolicy) -> Result<IdentityPolicy, PolicyError> {
        let mut pairs = self.context.iter();
        pairs.try_fold(policy, |policy, (key, value)| policy.only_where(key, value))
    }

    fn names_users(&self) -> bool {
        !self.users.is_empty() || !self.lifecycle_users.is_empty()
    }
}

fn own_context() -> impl Iterator<Item = (String, String)> {
    let pairs = ANY_CONTEXT_OF_ENCX.into_iter();
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned()))
}

fn pair(name: &str, text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{name} takes KEY=VALUE, and `{text}` is none")),
    }
}

fn tag(name: &str, text: &str) -> Result<(String, String), String> {
    let (key, value) = pair(name, text)?;
    if key.to_ascii_lowercase().starts_with("aws:") || key.len() > 128 || value.len() > 256 {
        return Err(format!(
            "{name}: a tag's key does not begin with `aws:` and has 128 characters at most, its value 256; `{key}` is none"
        ));
    }
    Ok((key, value))
}

fn period(text: &str) -> Result<RotationPeriod, String> {
    let days = text.parse().ok().and_then(RotationPeriod::days);
    days.ok_or_else(|| format!("--rotation-days takes 90 to 2560, and `{text}` is none of them"))
}

fn is_json(text: &str) -> Result<bool, String> {
    match text {
        "json" => Ok(true),
        "text" => Ok(false),
        _ => Err(format!("--format takes text or json, and `{text}` is neither")),
    }
}
