//! Key administration: create, name, rotate and replicate keys, and set their policies.
//!
//! No service needs it. [`IdentityPolicy::administrator`](crate::policy::IdentityPolicy::administrator) allows all of
//! it.
//!
//! ```no_run
//! use encx_aws::AwsKms;
//! use encx_aws::admin::{KmsAdmin, NewKek, RotationPeriod};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let admin = KmsAdmin::new(&AwsKms::from_env().await?);
//! let kek = admin.create_kek(&NewKek::new().description("pii of the shop").tag("team", "shop")).await?;
//! admin.set_alias("alias/shop-pii", &kek).await?;
//! admin.rotate_automatically(&kek, RotationPeriod::default()).await?;
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::types::{KeyMetadata, KeySpec, KeyUsageType, MultiRegionConfiguration, Tag};
use encx_core::key::KekId;
use encx_core::kms::{KekState, KmsErrorKind};

use crate::arn::{KeyArn, KeyName};
use crate::error::{AwsError, Message};
use crate::kms::{AwsKms, Inner, state_of};
use crate::policy::{KeyPolicy, PolicyDifference};

/// Creates and manages KEKs.
#[derive(Clone)]
pub struct KmsAdmin(Arc<Inner>);

/// The properties of a KEK to create: a symmetric key whose material AWS KMS generates.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct NewKek {
    description: String,
    tags: Vec<(String, String)>,
    multi_region: bool,
    policy: Option<KeyPolicy>,
}

impl NewKek {
    /// Creates the description of a single-region key, without description and tags, and with AWS's default policy.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the description. Must not contain a secret.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Adds a tag. Must not contain a secret.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// Makes it the primary of a multi-region key, which can be replicated. This cannot be changed later.
    pub fn multi_region(mut self) -> Self {
        self.multi_region = true;
        self
    }

    /// Sets its policy.
    pub fn policy(mut self, policy: KeyPolicy) -> Self {
        self.policy = Some(policy);
        self
    }
}

/// An existing key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundKek {
    /// Its ARN.
    pub kek: KekId,
    /// Whether it can be used.
    pub state: KekState,
    /// Whether it is a symmetric key for encryption, as a KEK must be.
    pub is_symmetric: bool,
    /// Whether it can have replicas. This cannot be changed.
    pub multi_region: bool,
    /// The keys that share its material, by region: the primary and its replicas, including itself. Empty for a
    /// single-region key.
    pub everywhere: BTreeMap<String, KekId>,
}

impl FoundKek {
    /// Checks that it can serve as a KEK now.
    ///
    /// # Errors
    ///
    /// [`AdminError`] that says why not, and what to do.
    pub fn check_usable(&self) -> Result<(), AdminError> {
        let refused = |kind, what: &str| {
            let failed = Failed::new("kms:DescribeKey", self.kek.as_str());
            Err(AdminError {
                kind,
                ..failed.odd(what)
            })
        };
        if !self.is_symmetric {
            let what = "it is an asymmetric or HMAC key, and a KEK is a symmetric key for ENCRYPT_DECRYPT; name another key";
            return refused(KmsErrorKind::Configuration, what);
        }
        match self.state {
            KekState::Enabled => Ok(()),
            KekState::Disabled => refused(
                KmsErrorKind::KeyState,
                "it is disabled; enable it with `aws kms enable-key`",
            ),
            KekState::PendingDeletion => refused(
                KmsErrorKind::KeyState,
                "it waits for its deletion; keep it with `aws kms cancel-key-deletion` and then `aws kms enable-key`, for it is \
                 disabled after that",
            ),
            _ => refused(
                KmsErrorKind::KeyState,
                "its state does not let it be used; see `aws kms describe-key`",
            ),
        }
    }
}

/// Checks that AWS KMS accepts an alias, before anything is created for it.
///
/// # Errors
///
/// [`AdminError`] that states the valid form.
pub fn check_alias(alias: &str) -> Result<(), AdminError> {
    let odd = |what: &str| Err(Failed::new("kms:CreateAlias", alias).odd(what));
    let Some(name) = alias.strip_prefix("alias/") else {
        return odd("an alias begins with `alias/`, such as `alias/shop-pii`");
    };
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte);
    if name.is_empty() || alias.len() > 256 || !name.bytes().all(is_allowed) {
        return odd(
            "an alias has letters, digits, `/`, `_` and `-` after `alias/`, and 256 characters at most",
        );
    }
    if name.starts_with("aws/") {
        return odd("names that begin with `alias/aws/` are AWS's own; choose another");
    }
    Ok(())
}

/// How often AWS KMS rotates a key's material: every 90 to 2560 days. Default: 90.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationPeriod(i32);

impl fmt::Display for RotationPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(days) = self;
        write!(f, "every {days} days")
    }
}

impl RotationPeriod {
    /// Parses a number of days. `None` unless it is 90 to 2560.
    #[must_use]
    pub fn days(days: u32) -> Option<Self> {
        i32::try_from(days)
            .ok()
            .filter(|days| (90..=2560).contains(days))
            .map(Self)
    }
}

impl Default for RotationPeriod {
    fn default() -> Self {
        Self(90)
    }
}

/// What an idempotent call has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It did not exist, and was created.
    Created,
    /// It differed, and was changed.
    Changed,
    /// It was already as requested.
    Unchanged,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        })
    }
}

impl KmsAdmin {
    /// Administers the keys of the same account and regions, with the same credentials.
    #[must_use]
    pub fn new(kms: &AwsKms) -> Self {
        Self(Arc::clone(&kms.0))
    }

    /// Creates a key in the first region, and returns its ARN.
    ///
    /// # Errors
    ///
    /// [`AdminError`]; an interruption may leave a key that has no name.
    ///
    /// # Cancellation
    ///
    /// The key is then either created or not.
    pub async fn create_kek(&self, new: &NewKek) -> Result<KekId, AdminError> {
        let failed = Failed::new("kms:CreateKey", "a new key");
        new.policy.iter().try_for_each(|policy| failed.check(policy))?;
        let mut create = self.home().create_key().description(&new.description);
        if new.multi_region {
            create = create.multi_region(true);
        }
        for (key, value) in &new.tags {
            let tag = Tag::builder().tag_key(key).tag_value(value).build();
            create = create.tags(tag.map_err(|error| failed.odd(&error.to_string()))?);
        }
        let policy = new.policy.as_ref().map(ToString::to_string);
        let made = create.set_policy(policy).send().await;
        let made = made.map_err(|error| failed.because(&error))?;
        arn_of(made.key_metadata(), &failed)
    }

    /// Returns the ARN of the key that a name refers to: an alias, an id or an ARN. `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`AdminError`], except if the key is not found.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn find_kek(&self, name: &str) -> Result<Option<KekId>, AdminError> {
        let failed = Failed::new("kms:DescribeKey", name);
        match self.describe(name).await {
            Ok(metadata) => arn_of(Some(&metadata), &failed).map(Some),
            Err(error) if error.kind() == KmsErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Describes the key that a name refers to: an alias, an id or an ARN. `None` if there is none.
    ///
    /// # Errors
    ///
    /// As for [`find_kek`](Self::find_kek).
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn inspect_kek(&self, name: &str) -> Result<Option<FoundKek>, AdminError> {
        let failed = Failed::new("kms:DescribeKey", name);
        let metadata = match self.describe(name).await {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == KmsErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut everywhere = BTreeMap::new();
        if let Some(regions) = metadata.multi_region_configuration() {
            for key in regions.primary_key().into_iter().chain(regions.replica_keys()) {
                if let (Some(region), Some(arn)) = (key.region(), key.arn()) {
                    let kek = KekId::new(arn).map_err(|error| failed.odd(&error.to_string()))?;
                    everywhere.insert(region.to_owned(), kek);
                }
            }
        }
        let is_for_encryption = metadata.key_usage() == Some(&KeyUsageType::EncryptDecrypt);
        // Keys without a spec predate other kinds of keys.
        let spec = metadata
            .key_spec()
            .is_none_or(|spec| *spec == KeySpec::SymmetricDefault);
        Ok(Some(FoundKek {
            kek: arn_of(Some(&metadata), &failed)?,
            state: state_of(&metadata),
            is_symmetric: is_for_encryption && spec,
            multi_region: metadata.multi_region().unwrap_or_default(),
            everywhere,
        }))
    }

    /// Sets these tags on a key, and keeps its others. Must not contain a secret.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    ///
    /// # Cancellation
    ///
    /// The change is then either done or not.
    pub async fn set_tags(&self, kek: &KekId, tags: &[(String, String)]) -> Result<Change, AdminError> {
        let client = self.client_of(kek);
        let failed = Failed::new("kms:ListResourceTags", kek.as_str());
        let list = client.list_resource_tags().key_id(kek.as_str());
        let found = list.send().await.map_err(|error| failed.because(&error))?;
        let is_there = |key: &str, value: &str| {
            let mut found = found.tags().iter();
            found.any(|tag| tag.tag_key() == key && tag.tag_value() == value)
        };
        let missing: Vec<_> = tags.iter().filter(|(key, value)| !is_there(key, value)).collect();
        if missing.is_empty() {
            return Ok(Change::Unchanged);
        }
        let failed = Failed::new("kms:TagResource", kek.as_str());
        let mut set = client.tag_resource().key_id(kek.as_str());
        for (key, value) in missing {
            let tag = Tag::builder().tag_key(key).tag_value(value).build();
            set = set.tags(tag.map_err(|error| failed.odd(&error.to_string()))?);
        }
        set.send().await.map_err(|error| failed.because(&error))?;
        Ok(Change::Changed)
    }

    /// Returns how often AWS KMS rotates a key's material; `None` if it does not.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn rotation(&self, kek: &KekId) -> Result<Option<RotationPeriod>, AdminError> {
        let failed = Failed::new("kms:GetKeyRotationStatus", kek.as_str());
        let status = self.client_of(kek).get_key_rotation_status().key_id(kek.as_str());
        let status = status.send().await.map_err(|error| failed.because(&error))?;
        // Without a period it is a year, the period before periods could be chosen.
        let days = status.rotation_period_in_days().unwrap_or(365);
        Ok(status.key_rotation_enabled().then_some(RotationPeriod(days)))
    }

    /// Points an alias to a key, in the key's region, replacing its previous target.
    ///
    /// Wraps are not affected: they name their key. Other processes follow within a minute.
    ///
    /// # Errors
    ///
    /// [`AdminError`]; an alias begins with `alias/`, and `alias/aws/` is AWS's own.
    ///
    /// # Cancellation
    ///
    /// The change is then either done or not.
    pub async fn set_alias(&self, alias: &str, kek: &KekId) -> Result<Change, AdminError> {
        check_alias(alias)?;
        let (failed, client) = (Failed::new("kms:DescribeKey", alias), self.client_of(kek));
        let found = match client.describe_key().key_id(alias).send().await {
            Ok(found) => Some(arn_of(found.key_metadata(), &failed)?),
            Err(error) => match failed.because(&error) {
                error if error.kind() == KmsErrorKind::NotFound => None,
                error => return Err(error),
            },
        };
        match found {
            Some(found) if &found == kek => Ok(Change::Unchanged),
            Some(_) => {
                let update = client
                    .update_alias()
                    .alias_name(alias)
                    .target_key_id(kek.as_str());
                let failed = Failed::new("kms:UpdateAlias", alias);
                update.send().await.map_err(|error| failed.because(&error))?;
                Ok(Change::Changed)
            }
            None => {
                let create = client
                    .create_alias()
                    .alias_name(alias)
                    .target_key_id(kek.as_str());
                let failed = Failed::new("kms:CreateAlias", alias);
                create.send().await.map_err(|error| failed.because(&error))?;
                Ok(Change::Created)
            }
        }
    }

    /// Enables automatic rotation of a key's material. Old material still unwraps, and no wrap changes.
    ///
    /// For a multi-region key, it is set on the primary and applies to all replicas.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    ///
    /// # Cancellation
    ///
    /// The change is then either done or not.
    pub async fn rotate_automatically(
        &self,
        kek: &KekId,
        period: RotationPeriod,
    ) -> Result<Change, AdminError> {
        let client = self.client_of(kek);
        let failed = Failed::new("kms:GetKeyRotationStatus", kek.as_str());
        let status = client.get_key_rotation_status().key_id(kek.as_str()).send().await;
        let status = status.map_err(|error| failed.because(&error))?;
        let RotationPeriod(days) = period;
        if status.key_rotation_enabled() && status.rotation_period_in_days() == Some(days) {
            return Ok(Change::Unchanged);
        }
        let failed = Failed::new("kms:EnableKeyRotation", kek.as_str());
        let enable = client.enable_key_rotation().key_id(kek.as_str());
        let enabled = enable.rotation_period_in_days(days).send().await;
        enabled.map_err(|error| failed.because(&error))?;
        Ok(if status.key_rotation_enabled() {
            Change::Changed
        } else {
            Change::Created
        })
    }

    /// Rotates a key's material now. AWS KMS allows this 25 times per key.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    ///
    /// # Cancellation
    ///
    /// The rotation has then either started or not.
    pub async fn rotate_now(&self, kek: &KekId) -> Result<(), AdminError> {
        let failed = Failed::new("kms:RotateKeyOnDemand", kek.as_str());
        let rotate = self.client_of(kek).rotate_key_on_demand().key_id(kek.as_str());
        rotate.send().await.map_err(|error| failed.because(&error))?;
        Ok(())
    }

    /// Creates a replica of a multi-region key in a region, and returns its ARN. It is usable after some seconds.
    ///
    /// The replica has its own policy, by default AWS's default policy. Tags, aliases and descriptions are not
    /// replicated either.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    ///
    /// # Cancellation
    ///
    /// The replica is then either created or not.
    pub async fn replicate_kek(
        &self,
        kek: &KekId,
        region: &str,
        policy: Option<&KeyPolicy>,
    ) -> Result<(KekId, Change), AdminError> {
        let failed = Failed::new("kms:ReplicateKey", kek.as_str());
        policy.into_iter().try_for_each(|policy| failed.check(policy))?;
        let metadata = self.describe(kek.as_str()).await?;
        if metadata.multi_region() == Some(false) {
            return Err(failed.odd(NO_REPLICAS));
        }
        let regions = metadata.multi_region_configuration();
        let replicas = regions
            .map(MultiRegionConfiguration::replica_keys)
            .unwrap_or_default();
        let primary = regions.and_then(|regions| regions.primary_key());
        let there = primary
            .into_iter()
            .chain(replicas)
            .find(|key| key.region() == Some(region));
        if let Some(arn) = there.and_then(|key| key.arn()) {
            let kek = KekId::new(arn).map_err(|error| failed.odd(&error.to_string()))?;
            return Ok((kek, Change::Unchanged));
        }
        // Only the primary can be replicated.
        let primary = primary.and_then(|primary| primary.arn()).unwrap_or(kek.as_str());
        let primary = KekId::new(primary).map_err(|error| failed.odd(&error.to_string()))?;
        let replicate = self.client_of(&primary).replicate_key().key_id(primary.as_str());
        let policy = policy.map(ToString::to_string);
        let made = replicate.replica_region(region).set_policy(policy).send().await;
        let made = made.map_err(|error| failed.because(&error))?;
        Ok((arn_of(made.replica_key_metadata(), &failed)?, Change::Created))
    }

    /// Compares a policy with the current one, to show what [`set_policy`](Self::set_policy) would change.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn compare_policy(
        &self,
        kek: &KekId,
        policy: &KeyPolicy,
    ) -> Result<PolicyDifference, AdminError> {
        let client = self.client_of(kek);
        let failed = Failed::new("kms:GetKeyPolicy", kek.as_str());
        let get = client
            .get_key_policy()
            .key_id(kek.as_str())
            .policy_name("default");
        let found = get.send().await.map_err(|error| failed.because(&error))?;
        let found = found
            .policy()
            .and_then(|found| serde_json::from_str(found).ok())
            .ok_or_else(|| failed.odd("the answer has no policy"))?;
        Ok(PolicyDifference::between(&found, &policy.to_json()))
    }

    /// Sets the policy of a key, unless it already has it. It replaces the whole policy: principals that it does not
    /// name lose their permissions, see [`compare_policy`](Self::compare_policy).
    ///
    /// # Errors
    ///
    /// [`AdminError`]; AWS KMS refuses a policy under which the caller could not change it again.
    ///
    /// # Cancellation
    ///
    /// The change is then either done or not.
    pub async fn set_policy(&self, kek: &KekId, policy: &KeyPolicy) -> Result<Change, AdminError> {
        let failed = Failed::new("kms:PutKeyPolicy", kek.as_str());
        failed.check(policy)?;
        if self.compare_policy(kek, policy).await?.is_empty() {
            return Ok(Change::Unchanged);
        }
        let client = self.client_of(kek);
        let put = client
            .put_key_policy()
            .key_id(kek.as_str())
            .policy_name("default");
        put.policy(policy.to_string())
            .send()
            .await
            .map_err(|error| failed.because(&error))?;
        Ok(Change::Changed)
    }

    async fn describe(&self, name: &str) -> Result<KeyMetadata, AdminError> {
        let failed = Failed::new("kms:DescribeKey", name);
        let described = self.client_named(name).describe_key().key_id(name).send().await;
        let described = described.map_err(|error| failed.because(&error))?;
        described
            .key_metadata
            .ok_or_else(|| failed.odd("the answer has no metadata"))
    }

    fn home(&self) -> Client {
        self.0
            .clients
            .client(self.0.regions.first().map_or("", String::as_str))
    }

    fn client_of(&self, kek: &KekId) -> Client {
        self.client_named(kek.as_str())
    }

    fn client_named(&self, name: &str) -> Client {
        match KeyName::parse(name) {
            Some(KeyName::Arn(arn)) => self.0.clients.client(arn.region),
            Some(KeyName::AliasArn { region }) => self.0.clients.client(region),
            Some(KeyName::Alias | KeyName::Id { .. }) | None => self.home(),
        }
    }
}

impl fmt::Debug for KmsAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KmsAdmin")
            .field("regions", &self.0.regions)
            .finish_non_exhaustive()
    }
}

fn arn_of(metadata: Option<&KeyMetadata>, failed: &Failed<'_>) -> Result<KekId, AdminError> {
    let arn = metadata
        .and_then(KeyMetadata::arn)
        .filter(|arn| KeyArn::parse(arn).is_some());
    let arn = arn.ok_or_else(|| failed.odd("the answer names no key"))?;
    KekId::new(arn).map_err(|error| failed.odd(&error.to_string()))
}

/// Why a single-region key cannot be replicated.
const NO_REPLICAS: &str = "it is a key of one region, which cannot be changed; make a multi-region key under another alias, and move the \
                           data keys there with `rewrap`";

/// The failed action, and its target.
struct Failed<'a> {
    action: &'static str,
    of: &'a str,
}

impl<'a> Failed<'a> {
    fn new(action: &'static str, of: &'a str) -> Self {
        Self { action, of }
    }

    fn because<E>(&self, error: &SdkError<E, HttpResponse>) -> AdminError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        // No request of an administrator carries a secret.
        let source = AwsError::new(error, Message::Kept, true);
        AdminError {
            action: self.action,
            of: self.of.to_owned(),
            kind: source.kind(),
            what: None,
            source: Some(Box::new(source)),
        }
    }

    /// Refuses a policy that names an invalid principal.
    fn check(&self, policy: &KeyPolicy) -> Result<(), AdminError> {
        policy.check().map_err(|error| self.odd(&error.to_string()))
    }

    fn odd(&self, what: &str) -> AdminError {
        AdminError {
            action: self.action,
            of: self.of.to_owned(),
            kind: KmsErrorKind::Configuration,
            what: Some(what.to_owned()),
            source: None,
        }
    }
}

/// Says which administrator action failed, on what, and why.
pub struct AdminError {
    action: &'static str,
    of: String,
    kind: KmsErrorKind,
    what: Option<String>,
    source: Option<Box<AwsError>>,
}

impl AdminError {
    /// Returns why it failed.
    #[must_use]
    pub fn kind(&self) -> KmsErrorKind {
        self.kind
    }

    /// Returns the action of AWS KMS that failed, such as `kms:CreateKey`, which is also the permission it needs.
    #[must_use]
    pub fn action(&self) -> &'static str {
        self.action
    }
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed for {}", self.action, self.of)?;
        if let Some(what) = &self.what {
            write!(f, ": {what}")?;
        }
        let about_credentials = self
            .source
            .as_ref()
            .and_then(|source| source.credentials_advice());
        match self.kind {
            _ if about_credentials.is_some() => write!(
                f,
                ": there are no credentials; {}",
                about_credentials.unwrap_or_default()
            ),
            KmsErrorKind::AccessDenied => write!(
                f,
                ": access is denied; the caller's identity policy and the key's policy must allow {}",
                self.action
            ),
            _ => match &self.source {
                Some(source) => write!(f, ": {source}"),
                None => Ok(()),
            },
        }
    }
}

impl std::error::Error for AdminError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl fmt::Debug for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encx_core::causes::debug_error(self, f)
    }
}
