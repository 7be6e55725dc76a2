//! Checks that each KEK answers, is usable, rotates, and is allowed by the KEK rule.

use std::collections::BTreeSet;

use anyhow::Result;
use encx::kms::KmsErrorKind;

use crate::doctor::finding::{Check, Code, Severity, count_of};
use crate::keks::{View, views};
use crate::session::Session;

/// KEKs with a fault, so that versions that only they wrap need not be tried.
#[derive(Debug, Default)]
pub(crate) struct Troubled {
    /// By KMS and resolved name.
    keks: BTreeSet<(String, String)>,
    /// KMSs that do not answer.
    kms: BTreeSet<String>,
}

impl Troubled {
    /// Tells whether a wrap is already known not to open.
    pub(crate) fn has(&self, kms: &str, kek: &str) -> bool {
        self.kms.contains(kms) || self.keks.contains(&(kms.to_owned(), kek.to_owned()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keks.is_empty() && self.kms.is_empty()
    }

    fn add(&mut self, view: &View) {
        self.keks.insert((view.kms.clone(), view.kek.clone()));
    }
}

pub(crate) async fn check(session: &Session, troubled: &mut Troubled, found: &mut Check) -> Result<()> {
    let views = views(session).await?;
    let by_closure = session.manager(None).await?.named_keks().by_closure;
    let mut unnamed = BTreeSet::new();
    for view in views.iter().filter(|view| view.is_in_rule) {
        match &view.failure {
            Some(failure) => {
                // The KMS did not resolve the alias, so its wraps cannot be identified.
                unnamed.insert(view.kms.clone());
                if !failure.is_silence() {
                    not_described(view, failure.kind, &failure.text, troubled, found);
                } else if troubled.kms.insert(view.kms.clone()) {
                    found.error(
                        Code::KmsUnreachable,
                        format!("KMS {}", view.kms),
                        format!(
                            "it does not answer, so no key can be made or unwrapped there: {}",
                            failure.text
                        ),
                        "restore the way to it: address, firewall, proxy, credentials",
                    );
                }
            }
            None => described(view, troubled, found),
        }
    }
    for view in views.iter().filter(|view| !view.is_in_rule) {
        if by_closure || unnamed.contains(&view.kms) {
            found.not_checked(format!(
                "whether the KEK rule allows {}: {}",
                view.name(),
                match by_closure {
                    true => "it is a function of the application",
                    false => "another KEK of its KMS could not be described",
                }
            ));
            continue;
        }
        troubled.add(view);
        found.find(
            // Versions that another KEK also wraps are not lost yet.
            if view.sole > 0 { Severity::Error } else { Severity::Warning },
            Code::KekNotAllowed,
            view.name(),
            format!(
                "the KEK rule does not allow it, and it wraps {}, {} of them alone: these cannot be read",
                versions(view),
                view.sole
            ),
            "add it to `also_unwrap` (ENCX_ALSO_UNWRAP), then `encx rewrap`; if it was never yours, restore the rows",
        );
    }
    Ok(())
}

fn versions(view: &View) -> String {
    count_of(view.versions, "version")
}

/// Reports on a KEK that its KMS described.
fn described(view: &View, troubled: &mut Troubled, found: &mut Check) {
    let lost = format!("{} that it wraps cannot be read", versions(view));
    match view.state {
        "enabled" => {}
        "disabled" => {
            troubled.add(view);
            found.error(
                Code::KekDisabled,
                view.name(),
                format!("it is disabled: {lost}"),
                "enable it in its KMS, or move what it wraps: `encx rewrap`",
            );
            return;
        }
        "pending deletion" => {
            troubled.add(view);
            let when = view.deletion_at.as_deref().unwrap_or("soon");
            found.error(
                Code::KekPendingDeletion,
                view.name(),
                format!(
                    "its KMS deletes it on {when}, and with it {} versions",
                    view.versions
                ),
                "cancel the deletion at once, enable it, and move what it wraps: `encx rewrap`",
            );
            return;
        }
        state => {
            troubled.add(view);
            found.error(
                Code::KekUnavailable,
                view.name(),
                format!("it is {state}: {lost}"),
                "see what its KMS says of it",
            );
            return;
        }
    }
    if view.rotation == Some(false) {
        found.warning(
            Code::KekRotationOff,
            view.name(),
            "its KMS does not rotate its material",
            "switch on automatic rotation in its KMS",
        );
    }
}

/// Reports on a KEK that its KMS did not describe.
fn not_described(view: &View, kind: KmsErrorKind, text: &str, troubled: &mut Troubled, found: &mut Check) {
    let (code, what, remedy) = match kind {
        KmsErrorKind::NotFound => (
            Code::KekNotFound,
            format!("its KMS has no such KEK: {text}"),
            "correct the KEK rule; if the KEK was deleted, what it wraps is lost",
        ),
        KmsErrorKind::AccessDenied => (
            Code::KekAccessDenied,
            format!("its KMS denies access: {text}"),
            "allow these credentials to describe it, as the policies of encx-aws do",
        ),
        KmsErrorKind::Unsupported | KmsErrorKind::Throttled => {
            return found.not_checked(format!("{}: {text}", view.name()));
        }
        _ => (
            Code::KekUnavailable,
            text.to_owned(),
            "see what its KMS says of it",
        ),
    };
    troubled.add(view);
    found.error(code, view.name(), what, remedy);
}
