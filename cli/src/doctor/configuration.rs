//! Checks that the settings work: KMSs open, the KEK rule names known KMSs, nothing insecure is in use.

use anyhow::Result;

use crate::doctor::finding::{Check, Code};
use crate::exit::describe;
use crate::session::Session;

/// Returns whether KMSs and the KEK rule can be used.
pub(crate) async fn check(session: &Session, found: &mut Check) -> Result<bool> {
    let kms = match session.kms().await {
        Ok(kms) => kms,
        Err(error) => {
            unusable(found, "KMS", &error);
            return Ok(false);
        }
    };
    let mut in_memory = false;
    for (name, service) in kms.iter() {
        if service.provider() == "memory" {
            in_memory = true;
            found.error(
                Code::KmsInMemory,
                format!("KMS {name}"),
                "its KEKs are in memory and end with the process, and with them all that was encrypted",
                "name another KMS, such as `aws-kms:alias/..`, before anything is encrypted that has to be read again",
            );
        }
    }
    if session.settings.allows_insecure() && !in_memory {
        found.warning(
            Code::InsecureAllowed,
            "settings",
            "insecure settings are allowed, such as a KEK file that nothing protects but its permissions",
            "take `allow_insecure` (ENCX_ALLOW_INSECURE) away, and set what is then missed",
        );
    }
    if let Err(error) = session.manager(None).await {
        unusable(found, "KEK rule", &error);
        return Ok(false);
    }
    Ok(true)
}

fn unusable(found: &mut Check, subject: &str, error: &anyhow::Error) {
    found.error(
        Code::SettingsUnusable,
        subject,
        describe(error),
        "correct the settings: `encx config show` says what sets each",
    );
}
