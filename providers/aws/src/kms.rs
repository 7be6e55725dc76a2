//! [`AwsKms`]: the KMS contract on AWS KMS.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeyMetadata, KeyState};
use encx_core::key::{DataKey, KekId, WrappedKey};
use encx_core::kms::{
    GeneratedDataKey, KekDescription, KekState, KeyManagementService, KmsContext, KmsError, KmsErrorKind,
    KmsOperation, RequestCounter, report_requests,
};
use encx_core::store::Timestamp;
use tracing::instrument::WithSubscriber;
use zeroize::Zeroizing;

use crate::arn::{KeyArn, KeyName};
use crate::clients::Clients;
use crate::error::{Asked, AwsError, Message, PROVIDER};
use crate::flights::Flights;
use crate::moment::timestamp;
use crate::regions::Regions;

/// AWS KMS as the key management service of `encx`.
///
/// Cheap to clone; clones share their connections. Only the SDK retries.
#[derive(Clone)]
pub struct AwsKms(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) clients: Clients,
    /// The regions of multi-region keys, nearest first. Never empty. Aliases are resolved in the first.
    pub(crate) regions: Vec<String>,
    /// Whether the caller named several, and so chose where multi-region keys are used.
    pub(crate) several: bool,
    pub(crate) default_kek: Option<KekId>,
    /// Which of the regions is called first.
    pub(crate) order: Arc<Regions>,
    /// In-flight descriptions: any number of cold keys resolve a name with one call.
    pub(crate) descriptions: Flights<Result<KekDescription, KmsError>>,
    /// Set when this process was denied `GetKeyRotationStatus`, which a service does not need: it is not called again.
    pub(crate) rotation_is_secret: AtomicBool,
    /// Likewise for past rotations, which need another permission.
    pub(crate) rotations_are_secret: AtomicBool,
    /// By a key's ARN, the current material when its rotations were listed, and the time of the last one.
    pub(crate) last_rotations: Mutex<HashMap<String, (String, Option<Timestamp>)>>,
}

/// The most keys whose last rotation is cached.
const MAX_LAST_ROTATIONS: usize = 1000;

impl AwsKms {
    /// Returns the regions in which multi-region keys are used, nearest first. Aliases are resolved in the first.
    #[must_use]
    pub fn regions(&self) -> &[String] {
        &self.0.regions
    }

    /// Returns the number of requests that this process has sent to AWS KMS, by operation, such as `DescribeKey`.
    ///
    /// Each attempt counts, and so do requests that no call of `encx` shows: rotation status, administration, and
    /// trials of nearer regions. Clones share their counts.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), encx_aws::AwsKmsError> {
    /// let kms = encx_aws::AwsKms::from_env().await?;
    /// println!("{:?}", kms.requests().get("Decrypt"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.0.clients.requests().sent()
    }
}

/// A region where a KEK can be called, and its name there.
#[derive(Clone, Debug)]
struct Place {
    region: String,
    name: String,
}

impl Inner {
    /// Lists the places of a KEK, nearest first.
    fn places(&self, kek: &KekId) -> Option<Vec<Place>> {
        let one = |region: &str| {
            vec![Place {
                region: region.to_owned(),
                name: kek.to_string(),
            }]
        };
        let home = self.regions.first()?;
        Some(match KeyName::parse(kek.as_str())? {
            KeyName::Arn(arn) if self.several && arn.is_multi_region() => {
                let replicas = self.regions.iter().map(|region| Place {
                    region: region.clone(),
                    name: arn.in_region(region).to_string(),
                });
                replicas.collect()
            }
            KeyName::Id { multi_region: true } => {
                let replicas = self.regions.iter().map(|region| Place {
                    region: region.clone(),
                    name: kek.to_string(),
                });
                replicas.collect()
            }
            KeyName::Arn(arn) => one(arn.region),
            KeyName::AliasArn { region } => one(region),
            KeyName::Alias | KeyName::Id { .. } => one(home),
        })
    }

    fn asked<'a>(&'a self, operation: KmsOperation, kek: &'a KekId, region: &'a str) -> Asked<'a> {
        Asked {
            operation,
            kek,
            from: None,
            region,
            endpoint: self.clients.endpoint(region),
            proxy: self.clients.proxy(region),
        }
    }

    /// Calls one place after another until one answers, and reads the answer.
    async fn ask<A, T, E, F>(
        &self,
        operation: KmsOperation,
        kek: &KekId,
        call: impl Fn(Client, String) -> F,
        read: impl Fn(A, &Asked<'_>, &Place) -> Result<T, KmsError>,
    ) -> Result<T, KmsError>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = Result<A, SdkError<E, HttpResponse>>>,
    {
        let message = match operation {
            KmsOperation::WrapKey => Message::Dropped,
            _ => Message::Kept,
        };
        let places = self.places(kek).ok_or_else(|| no_arn(operation, kek))?;
        let (call, read) = (&call, &read);
        let at = async |place: &Place| {
            let asked = self.asked(operation, kek, &place.region);
            let call = call(self.clients.client(&place.region), place.name.clone());
            let answer = send(call, message).await.map_err(|error| asked.failed(error));
            self.note(answer.and_then(|answer| read(answer, &asked, place)), place, kek)
        };
        self.try_nearer(&places);
        let answered = self.order.ask(&places, at).await;
        answered.unwrap_or_else(|| Err(no_arn(operation, kek)))
    }

    /// Emits an event if a call failed because a region is unavailable.
    fn note<T>(&self, ended: Result<T, KmsError>, place: &Place, kek: &KekId) -> Result<T, KmsError> {
        if let Err(error) = &ended
            && error.kind() == KmsErrorKind::Unavailable
        {
            tracing::warn!(target: "encx::aws", region = %place.region, %kek, %error, "region unavailable");
        }
        ended
    }

    /// Tries in the background whether nearer regions answer again, if a farther one is first.
    fn try_nearer(&self, places: &[Place]) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if places.len() < 2 {
            return;
        }
        for at in self.order.to_try() {
            let Some(place) = places.get(at) else {
                return;
            };
            let describe = self
                .clients
                .client(&place.region)
                .describe_key()
                .key_id(&place.name);
            let order = Arc::downgrade(&self.order);
            // It ends within the operation timeout, and holds no key.
            runtime.spawn(async move {
                let is_there = match send(describe.send(), Message::Kept).await {
                    Ok(_) => true,
                    // A refusal is an answer, too.
                    Err(error) => error.is_answer() && error.kind() != KmsErrorKind::Unavailable,
                };
                if let (true, Some(order)) = (is_there, order.upgrade()) {
                    order.nearer_answered(at);
                }
            });
        }
    }

    /// Checks which key answered, and returns the permanent name of the requested KEK.
    ///
    /// A KEK named by its ARN keeps that name, also if a replica answered: readers of the wrap compare names. A KEK
    /// named otherwise gets the ARN. For a multi-region key, this is the ARN in the alphabetically first of the
    /// regions, so that processes with different nearest regions agree.
    fn answered_by(&self, asked: &Asked<'_>, place: &Place, answer: Option<&str>) -> Result<KekId, Mismatch> {
        let answer = answer.ok_or(Mismatch::Missing("the answer names no key"))?;
        let found = KeyArn::parse(answer).ok_or(Mismatch::Wrong("the answer names its key by no ARN"))?;
        if found.region != place.region {
            return Err(Mismatch::Wrong("a key of another region answered"));
        }
        let kek = asked.kek;
        match KeyName::parse(kek.as_str()) {
            Some(KeyName::Arn(arn)) if arn.shares_material_with(found) => Ok(kek.clone()),
            Some(KeyName::Id { .. }) if found.id() != kek.as_str() => {
                Err(Mismatch::Wrong("another key answered"))
            }
            Some(KeyName::AliasArn { .. } | KeyName::Alias | KeyName::Id { .. }) => {
                let first = self.regions.iter().min().filter(|_| self.several);
                let lasting = match first {
                    Some(region) if found.is_multi_region() => found.in_region(region).to_string(),
                    _ => answer.to_owned(),
                };
                KekId::new(lasting).map_err(|_| Mismatch::Wrong("the answer's key has no usable name"))
            }
            Some(KeyName::Arn(_)) | None => Err(Mismatch::Wrong("another key answered")),
        }
    }

    /// Moves a wrap inside AWS KMS, in one region.
    async fn re_encrypt(
        &self,
        wrapped: &WrappedKey,
        context: &KmsContext,
        to: &KekId,
        source: &Place,
        target: &Place,
    ) -> Result<WrappedKey, KmsError> {
        let from = &wrapped.kek;
        let asked = Asked {
            from: Some(from),
            ..self.asked(KmsOperation::RewrapKey, to, &target.region)
        };
        let client = self.clients.client(&target.region);
        let re_encrypt = client
            .re_encrypt()
            .ciphertext_blob(Blob::new(wrapped.ciphertext.as_slice()))
            .source_key_id(&source.name)
            .set_source_encryption_context(Some(pairs(context)))
            .destination_key_id(&target.name)
            .set_destination_encryption_context(Some(pairs(context)));
        let answer = send(re_encrypt.send(), Message::Kept).await;
        let answer = answer.map_err(|error| asked.failed(error))?;
        let unwrapping = Asked {
            kek: from,
            ..asked.clone()
        };
        self.answered_by(&unwrapping, source, answer.source_key_id.as_deref())
            .map_err(|mismatch| mismatch.of_unwrapping(&unwrapping))?;
        let material = answer.destination_key_material_id.as_deref();
        self.answered_by(&asked, target, answer.key_id.as_deref())
            .and_then(|kek| take_wrap(kek, answer.ciphertext_blob, material))
            .map_err(|mismatch| mismatch.of_wrapping(&asked))
    }

    /// Describes a key and its rotation.
    async fn describe(&self, kek: &KekId) -> Result<KekDescription, KmsError> {
        let (mut description, place, arn) = self
            .ask(
                KmsOperation::DescribeKek,
                kek,
                |client, name| client.describe_key().key_id(name).send(),
                |answer, asked, place| {
                    let described = || {
                        let metadata = answer
                            .key_metadata
                            .ok_or(Mismatch::Missing("the answer has no metadata"))?;
                        let lasting = self.answered_by(asked, place, metadata.arn())?;
                        let mut description = KekDescription::new(lasting, state_of(&metadata));
                        description.current_material = metadata.current_key_material_id;
                        description.multi_region = metadata.multi_region;
                        description.deletion = metadata.deletion_date.as_ref().map(timestamp);
                        Ok((description, place.clone(), metadata.arn.unwrap_or_default()))
                    };
                    described().map_err(|mismatch: Mismatch| mismatch.of_wrapping(asked))
                },
            )
            .await?;
        self.describe_rotation(&mut description, &place, &arn).await;
        Ok(description)
    }

    /// Fills in a key's rotation, if this process is allowed to read it.
    async fn describe_rotation(&self, description: &mut KekDescription, place: &Place, arn: &str) {
        if self.rotation_is_secret.load(Ordering::Relaxed) {
            return;
        }
        let client = self.clients.client(&place.region);
        let status = client.get_key_rotation_status().key_id(arn);
        match send(status.send(), Message::Kept).await {
            Ok(answer) => {
                let days = answer.rotation_period_in_days();
                let on = answer.key_rotation_enabled();
                description.rotation = Some(on);
                description.rotation_days = days.and_then(|days| days.try_into().ok()).filter(|_| on);
                description.next_rotation = answer.next_rotation_date().filter(|_| on).map(timestamp);
            }
            Err(error) => return unknown_rotation(&error, arn, &self.rotation_is_secret),
        }
        let material = description.current_material.as_deref();
        description.last_rotation = self.last_rotation(&client, arn, material).await;
    }

    /// Returns the time of a key's last rotation. Lists the rotations again only if the material has changed.
    async fn last_rotation(&self, client: &Client, arn: &str, material: Option<&str>) -> Option<Timestamp> {
        let known = || self.last_rotations.lock().unwrap_or_else(PoisonError::into_inner);
        match known().get(arn) {
            Some((of, last)) if Some(of.as_str()) == material => return *last,
            _ if self.rotations_are_secret.load(Ordering::Relaxed) => return None,
            _ => {}
        }
        // One page holds all rotations: AWS KMS rotates a key every 90 days at most, and 25 times on demand.
        let list = client.list_key_rotations().key_id(arn).limit(1000);
        match send(list.send(), Message::Kept).await {
            Ok(answer) => {
                let dates = answer
                    .rotations()
                    .iter()
                    .filter_map(|entry| entry.rotation_date());
                let last = dates.map(timestamp).max();
                if let Some(material) = material {
                    let mut known = known();
                    if known.len() >= MAX_LAST_ROTATIONS {
                        known.clear();
                    }
                    known.insert(arn.to_owned(), (material.to_owned(), last));
                }
                last
            }
            Err(error) => {
                unknown_rotation(&error, arn, &self.rotations_are_secret);
                None
            }
        }
    }
}

/// Sends a request, and reports how it failed and whether it was sent at all.
fn send<A, E>(
    call: impl Future<Output = Result<A, SdkError<E, HttpResponse>>>,
    message: Message,
) -> impl Future<Output = Result<A, AwsError>>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    // The SDK's futures are large, and each caller in the chain would hold a copy.
    let call = Box::pin(call);
    async move {
        let requests = RequestCounter::new();
        let answer = requests.during(call).await;
        answer.map_err(|error| AwsError::new(&error, message, requests.reported().is_some()))
    }
}

/// Notes that rotation is unknown, and whether not to ask again.
fn unknown_rotation(error: &AwsError, arn: &str, is_secret: &AtomicBool) {
    if error.kind() == KmsErrorKind::AccessDenied {
        is_secret.store(true, Ordering::Relaxed);
    }
    tracing::debug!(target: "encx::aws", kek = arn, %error, "rotation is unknown");
}

/// Says what is wrong with an answer.
#[derive(Clone, Copy, Debug)]
enum Mismatch {
    /// AWS KMS always sends this: the answer comes from something else.
    Missing(&'static str),
    /// The answer must not be trusted.
    Wrong(&'static str),
}

impl Mismatch {
    /// For wrapping: nothing was lost, and the configuration is wrong.
    fn of_wrapping(self, asked: &Asked<'_>) -> KmsError {
        match self {
            Self::Missing(what) => asked.not_answered(what),
            Self::Wrong(what) => asked.refused(
                KmsErrorKind::Configuration,
                format!("{what}: is the endpoint AWS KMS?"),
            ),
        }
    }

    /// For unwrapping: the answer is not the requested key.
    fn of_unwrapping(self, asked: &Asked<'_>) -> KmsError {
        match self {
            Self::Missing(what) => asked.not_answered(what),
            Self::Wrong(what) => asked.refused(
                KmsErrorKind::Integrity,
                format!("{what}, so what came is not believed"),
            ),
        }
    }
}

/// Sends a request that carries a data key without `tracing`: at level TRACE the SDK logs whole requests.
async fn unlogged<F: Future>(call: F) -> F::Output {
    // Without a subscriber nothing listens; setting one would disable tracing's own path to the crate `log`.
    if tracing::dispatcher::has_been_set() {
        call.with_subscriber(tracing::Dispatch::none()).await
    } else {
        call.await
    }
}

fn no_arn(operation: KmsOperation, kek: &KekId) -> KmsError {
    KmsError::new(KmsErrorKind::Configuration, PROVIDER, operation, kek)
        .with_advice("this is neither a key's ARN, nor a key id, nor an alias of AWS KMS")
}

/// Takes a key out of an answer, and wipes its buffer.
fn take_key(plaintext: Option<Blob>) -> Result<DataKey, Mismatch> {
    let bytes = Zeroizing::new(
        plaintext
            .ok_or(Mismatch::Missing("the answer has no key"))?
            .into_inner(),
    );
    DataKey::copy_from(&bytes).map_err(|_| Mismatch::Wrong("the answer's key has not 32 bytes"))
}

fn take_wrap(kek: KekId, blob: Option<Blob>, material: Option<&str>) -> Result<WrappedKey, Mismatch> {
    let ciphertext = blob
        .ok_or(Mismatch::Missing("the answer has no wrapped key"))?
        .into_inner();
    if !(1..=WrappedKey::MAX_LEN).contains(&ciphertext.len()) {
        return Err(Mismatch::Wrong("the answer's wrapped key has no possible length"));
    }
    let wrapped = WrappedKey::new(kek, ciphertext);
    Ok(match material {
        Some(material) => wrapped.with_material(material),
        None => wrapped,
    })
}

fn pairs(context: &KmsContext) -> HashMap<String, String> {
    let pairs = context.pairs();
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Reads whether a key can be used.
pub(crate) fn state_of(metadata: &KeyMetadata) -> KekState {
    match metadata.key_state() {
        Some(KeyState::Enabled) => KekState::Enabled,
        Some(KeyState::Disabled) => KekState::Disabled,
        Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion) => KekState::PendingDeletion,
        // A key stays usable while it is being updated: only its primary region changes.
        Some(KeyState::Updating) => KekState::Enabled,
        Some(_) => KekState::Unavailable,
        None if metadata.enabled() => KekState::Enabled,
        None => KekState::Unavailable,
    }
}

#[async_trait]
impl KeyManagementService for AwsKms {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    fn default_kek(&self) -> Option<&KekId> {
        self.0.default_kek.as_ref()
    }

    async fn generate_data_key(
        &self,
        kek: &KekId,
        context: &KmsContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        self.0
            .ask(
                KmsOperation::GenerateDataKey,
                kek,
                |client, name| {
                    client
                        .generate_data_key()
                        .key_id(name)
                        .key_spec(DataKeySpec::Aes256)
                        .set_encryption_context(Some(pairs(context)))
                        .send()
                },
                |mut answer, asked, place| {
                    // First, so that it is wiped even if another check fails.
                    let key = take_key(answer.plaintext.take());
                    let made = || {
                        let kek = self.0.answered_by(asked, place, answer.key_id.as_deref())?;
                        let material = answer.key_material_id.as_deref();
                        let wrapped = take_wrap(kek, answer.ciphertext_blob, material)?;
                        Ok(GeneratedDataKey::new(key?, wrapped))
                    };
                    made().map_err(|mismatch: Mismatch| mismatch.of_wrapping(asked))
                },
            )
            .await
    }

    async fn wrap_key(
        &self,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, KmsError> {
        self.0
            .ask(
                KmsOperation::WrapKey,
                kek,
                |client, name| {
                    // The SDK's own copies of it and of the request's body are out of reach.
                    let plaintext = Blob::new(key.expose().as_slice());
                    let call = client
                        .encrypt()
                        .key_id(name)
                        .plaintext(plaintext)
                        .set_encryption_context(Some(pairs(context)));
                    unlogged(call.send())
                },
                |answer, asked, place| {
                    self.0
                        .answered_by(asked, place, answer.key_id.as_deref())
                        .and_then(|kek| take_wrap(kek, answer.ciphertext_blob, None))
                        .map_err(|mismatch| mismatch.of_wrapping(asked))
                },
            )
            .await
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &KmsContext) -> Result<DataKey, KmsError> {
        let (operation, kek) = (KmsOperation::UnwrapKey, &wrapped.kek);
        only_by_arn(operation, kek)?;
        self.0
            .ask(
                operation,
                kek,
                |client, name| {
                    client
                        .decrypt()
                        .key_id(name)
                        .ciphertext_blob(Blob::new(wrapped.ciphertext.as_slice()))
                        .set_encryption_context(Some(pairs(context)))
                        .send()
                },
                |mut answer, asked, place| {
                    let key = take_key(answer.plaintext.take());
                    self.0
                        .answered_by(asked, place, answer.key_id.as_deref())
                        .and(key)
                        .map_err(|mismatch| mismatch.of_unwrapping(asked))
                },
            )
            .await
    }

    /// Moves a wrap with one `ReEncrypt`, inside AWS KMS, if both KEKs can be called in one region.
    ///
    /// `ReEncrypt` works within one region. Between two, the key is unwrapped and wrapped again, and so passes through
    /// this process.
    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &KmsContext,
        to: &KekId,
    ) -> Result<WrappedKey, KmsError> {
        let (operation, from) = (KmsOperation::RewrapKey, &wrapped.kek);
        only_by_arn(operation, from)?;
        let sources = self.0.places(from).ok_or_else(|| no_arn(operation, from))?;
        let targets = self.0.places(to).ok_or_else(|| no_arn(operation, to))?;
        let shared: Vec<_> = targets
            .iter()
            .filter_map(|target| {
                let source = sources.iter().find(|source| source.region == target.region)?;
                Some((source, target))
            })
            .collect();
        self.0.try_nearer(if shared.len() > 1 { &targets } else { &[] });
        let moved = self.0.order.ask(&shared, async |(source, target)| {
            let moved = self.0.re_encrypt(wrapped, context, to, source, target).await;
            self.0.note(moved, target, to)
        });
        match moved.await {
            Some(moved) => moved,
            None => {
                let key = self.unwrap_key(wrapped, context).await?;
                self.wrap_key(to, &key, context).await
            }
        }
    }

    /// Describes a key, including its current material.
    ///
    /// Without `kms:GetKeyRotationStatus` it is unknown whether the key is rotated, and without `kms:ListKeyRotations`
    /// when it last was. A service needs neither; a denied call is not repeated. Concurrent calls about one KEK share
    /// an answer.
    async fn describe_kek(&self, kek: &KekId) -> Result<KekDescription, KmsError> {
        // A caller that waits for an in-flight call sends no request.
        report_requests(0);
        let question = || self.0.describe(kek);
        self.0.descriptions.ask(kek.as_str(), question).await
    }
}

/// Refuses a wrap that names its KEK by anything but a key's ARN, as ours never do: other names can change their key.
fn only_by_arn(operation: KmsOperation, kek: &KekId) -> Result<(), KmsError> {
    KeyArn::parse(kek.as_str()).map(|_| ()).ok_or_else(|| {
        KmsError::new(KmsErrorKind::Integrity, PROVIDER, operation, kek)
            .with_advice("a wrap names its KEK by the ARN of a key, and this one does not")
    })
}

/// Shows the regions and the default KEK.
impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKms")
            .field("regions", &self.0.regions)
            .field("default_kek", &self.0.default_kek)
            .field("clients", &self.0.clients)
            .finish()
    }
}
