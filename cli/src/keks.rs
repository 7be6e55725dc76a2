//! KEKs that the KEK rule names or that wrap versions, as the rule, the KMSs and the key store report them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use encx::kms::{KekDescription, KekRef, KekState, KmsErrorKind, KmsName};
use encx::store::{KekUse, KeyStore};
use encx_config::OpenKms;
use serde::Serialize;

use crate::record::moment;
use crate::session::Session;

/// Time limit for a KMS to describe a KEK.
const PATIENCE: Duration = Duration::from_secs(10);

/// A KEK as the rule, the KMS and the key store report it.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    pub(crate) kms: String,
    pub(crate) kek: String,
    /// The rule's name for it, if different.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alias: Option<String>,
    pub(crate) is_in_rule: bool,
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) rotation: Option<bool>,
    pub(crate) rotation_days: Option<u32>,
    pub(crate) last_rotation: Option<String>,
    pub(crate) next_rotation: Option<String>,
    pub(crate) multi_region: Option<bool>,
    pub(crate) deletion_at: Option<String>,
    pub(crate) versions: u64,
    pub(crate) sole: u64,
    /// Why its KMS did not describe it.
    #[serde(skip)]
    pub(crate) failure: Option<Failure>,
}

/// Lists the KEKs that the rule names, as their KMSs describe them, and others that wrap versions.
pub(crate) async fn views(session: &Session) -> Result<Vec<View>> {
    let (kms, store) = (session.kms().await?, session.store().await?);
    let rule = session.manager(None).await?.named_keks();
    let mut used: BTreeMap<_, _> = store
        .keks()
        .await?
        .into_iter()
        .map(|used| (KekRef::new(used.kms.clone(), used.kek.clone()), used))
        .collect();
    let (mut views, mut silent): (Vec<View>, BTreeSet<KmsName>) = (Vec::new(), BTreeSet::new());
    for named in rule.wrapping.iter().chain(&rule.unwrapping) {
        // A KMS that did not answer is not called again for other KEKs.
        let described = match silent.contains(&named.kms) {
            true => Err(Failure::silence("its KMS did not answer before")),
            false => describe(kms, named).await,
        };
        if described.as_ref().is_err_and(Failure::is_silence) {
            silent.insert(named.kms.clone());
        }
        let lasting = match &described {
            Ok(description) => KekRef::new(named.kms.clone(), description.kek.clone()),
            Err(_) => named.clone(),
        };
        // Two names may refer to one KEK.
        if views.iter().any(|view| view.is(&lasting)) {
            continue;
        }
        let used = used.remove(&lasting);
        views.push(View::new(&lasting, Some(named), Some(described), used.as_ref()));
    }
    // Rows name these KEKs, but the rule does not. No KMS is called: rows must not choose which one is.
    views.extend(
        used.iter()
            .map(|(kek, used)| View::new(kek, None, None, Some(used))),
    );
    Ok(views)
}

/// Asks a KMS to describe a KEK.
pub(crate) async fn describe(kms: &OpenKms, kek: &KekRef) -> Result<KekDescription, Failure> {
    let Some(service) = kms.get(&kek.kms) else {
        let text = format!("no KMS is called `{}`", kek.kms);
        let kind = KmsErrorKind::Configuration;
        return Err(Failure { text, kind });
    };
    match tokio::time::timeout(PATIENCE, service.describe_kek(&kek.kek)).await {
        Ok(described) => described.map_err(|error| Failure {
            text: error.to_string(),
            kind: error.kind(),
        }),
        Err(_) => Err(Failure::silence("it did not answer within 10 seconds")),
    }
}

/// Why a KEK could not be described.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) kind: KmsErrorKind,
}

impl Failure {
    fn silence(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            kind: KmsErrorKind::Unavailable,
        }
    }

    /// Tells whether its KMS did not answer and need not be called for another KEK.
    pub(crate) fn is_silence(&self) -> bool {
        self.kind == KmsErrorKind::Unavailable
    }
}

impl View {
    fn new(
        kek: &KekRef,
        named: Option<&KekRef>,
        described: Option<Result<KekDescription, Failure>>,
        used: Option<&KekUse>,
    ) -> Self {
        let (description, failure) = match described {
            Some(Ok(description)) => (Some(description), None),
            Some(Err(failure)) => (None, Some(failure)),
            None => (None, None),
        };
        let told = description.as_ref();
        Self {
            kms: kek.kms.to_string(),
            kek: kek.kek.to_string(),
            alias: named
                .filter(|named| *named != kek)
                .map(|named| named.kek.to_string()),
            is_in_rule: named.is_some(),
            state: told.map_or("not asked", |told| state_name(told.state)),
            rotation: told.and_then(|told| told.rotation),
            rotation_days: told.and_then(|told| told.rotation_days),
            last_rotation: told.and_then(|told| told.last_rotation).map(moment),
            next_rotation: told.and_then(|told| told.next_rotation).map(moment),
            multi_region: told.and_then(|told| told.multi_region),
            deletion_at: told.and_then(|told| told.deletion).map(moment),
            versions: used.map_or(0, |used| used.versions),
            sole: used.map_or(0, |used| used.sole),
            error: failure.as_ref().map(|failure| failure.text.clone()),
            failure,
        }
    }

    fn is(&self, kek: &KekRef) -> bool {
        self.kms == kek.kms.as_str() && self.kek == kek.kek.as_str()
    }

    /// Returns its name, prefixed with its KMS.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.kms, self.kek)
    }

    /// Lists what is wrong with it and what to do.
    pub(crate) fn findings(&self) -> Vec<String> {
        let name = self.name();
        let mut findings = Vec::new();
        if let Some(error) = &self.error {
            findings.push(format!("{name} does not answer: {error}"));
        } else if self.is_in_rule && self.state != "enabled" {
            findings.push(format!(
                "{name} is {}: enable it, or move its {} versions with `encx rewrap`",
                self.state, self.versions
            ));
        }
        if !self.is_in_rule {
            findings.push(format!(
                "{name} wraps {} versions and the KEK rule does not allow it: add it to `also_unwrap`, or restore the rows if they were edited",
                self.versions
            ));
        }
        if self.rotation == Some(false) && self.is_in_rule {
            findings.push(format!(
                "{name} does not rotate: switch on automatic rotation in its KMS"
            ));
        }
        findings
    }
}

/// Names a KEK's state, as tables show it.
pub(crate) fn state_name(state: KekState) -> &'static str {
    match state {
        KekState::Disabled => "disabled",
        KekState::Enabled => "enabled",
        KekState::PendingDeletion => "pending deletion",
        _ => "unavailable",
    }
}
