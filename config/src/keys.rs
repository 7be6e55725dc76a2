//! The settings with a variable: their keys in the file, variables and defaults.

/// A setting, set by a variable or a key in the file.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its key in the file, such as `cache.ttl`.
    pub(crate) path: &'static str,
    /// Its variable.
    pub(crate) variable: &'static str,
    /// A fallback variable, used if neither is set.
    pub(crate) else_variable: Option<&'static str>,
    /// The default, in words.
    pub(crate) default: &'static str,
}

const fn key(path: &'static str, variable: &'static str, default: &'static str) -> Key {
    Key {
        path,
        variable,
        else_variable: None,
        default,
    }
}

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident = $path:literal, $variable:literal, $default:literal;)+) => {
        $($(#[$doc])* pub(crate) const $name: Key = key($path, $variable, $default);)+
        /// All settings but [`KEY_STORE`], in the order in which they are described.
        const WITHOUT_ELSE: &[&Key] = &[$(&$name),+];
    };
}

/// The key store.
pub(crate) const KEY_STORE: Key = Key {
    path: "key_store.url",
    variable: "ENCX_KEY_STORE",
    else_variable: Some("DATABASE_URL"),
    default: "",
};

keys! {
    LISTEN_URL = "key_store.listen_url", "ENCX_LISTEN_URL", "none: changes are polled";
    STORE_CA_FILE = "key_store.ca_file", "ENCX_KEY_STORE_CA_FILE", "as the URL says";
    TRANSACTION_POOLER = "key_store.transaction_pooler", "ENCX_KEY_STORE_TRANSACTION_POOLER", "as the URL says";
    KEK = "kek.default", "ENCX_KEK", "the KMS's own";
    ALSO_UNWRAP = "kek.also_unwrap", "ENCX_ALSO_UNWRAP", "none";
    ALSO_WRAP = "kek.also_wrap", "ENCX_ALSO_WRAP", "none";
    PASSPHRASE_FILE = "kek.passphrase_file", "ENCX_KEK_PASSPHRASE_FILE", "none";
    KEY_FILE = "kek.key_file", "ENCX_KEK_KEY_FILE", "none";
    TTL = "cache.ttl", "ENCX_CACHE_TTL", "1h";
    REFRESH_AHEAD = "cache.refresh_ahead", "ENCX_CACHE_REFRESH_AHEAD", "0.1";
    STATE_TTL = "cache.state_ttl", "ENCX_CACHE_STATE_TTL", "1m";
    MAX_KEYRINGS = "cache.max_keyrings", "ENCX_CACHE_MAX_KEYRINGS", "10000";
    MAX_KMS_CALLS = "cache.max_concurrent_kms_calls", "ENCX_CACHE_MAX_CONCURRENT_KMS_CALLS", "32";
    LOAD_TIMEOUT = "cache.load_timeout", "ENCX_CACHE_LOAD_TIMEOUT", "30s";
    CREATE_ON_FIRST_USE = "cache.create_on_first_use", "ENCX_CACHE_CREATE_ON_FIRST_USE", "true";
    STALE = "outage.stale_if_unavailable", "ENCX_OUTAGE_STALE_IF_UNAVAILABLE", "0s";
    STALE_ENCRYPT = "outage.stale_encrypt_if_unavailable", "ENCX_OUTAGE_STALE_ENCRYPT_IF_UNAVAILABLE", "stale_if_unavailable";
    STALE_DECRYPT = "outage.stale_decrypt_if_unavailable", "ENCX_OUTAGE_STALE_DECRYPT_IF_UNAVAILABLE", "stale_if_unavailable";
    FAIL_CLOSED = "outage.fail_closed_on_stale_state", "ENCX_OUTAGE_FAIL_CLOSED_ON_STALE_STATE", "false";
    CONNECT_LAZILY = "outage.connect_lazily", "ENCX_OUTAGE_CONNECT_LAZILY", "false";
    START_WITHOUT_KMS = "outage.start_without_kms", "ENCX_OUTAGE_START_WITHOUT_KMS", "false";
    SUITE = "cipher.suite", "ENCX_CIPHER_SUITE", "kc-xaes-256-gcm";
    ACCEPT_UNCOMMITTED = "cipher.accept_uncommitted", "ENCX_CIPHER_ACCEPT_UNCOMMITTED", "false";
    ACCEPT_COMPROMISED = "cipher.accept_compromised", "ENCX_CIPHER_ACCEPT_COMPROMISED", "false";
    OS_NONCES = "cipher.os_nonces", "ENCX_CIPHER_OS_NONCES", "false";
    ROTATE_EVERY = "rotation.every", "ENCX_ROTATION_EVERY", "90days";
    ROTATE_USAGES = "rotation.usages", "ENCX_ROTATION_USAGES", "data";
    ROTATION_INTERVAL = "rotation.interval", "ENCX_ROTATION_INTERVAL", "1h";
    PUBLISH_DEADLINE = "rotation.publish_deadline", "ENCX_ROTATION_PUBLISH_DEADLINE", "twice state_ttl";
    LEASE_TERM = "rotation.lease_term", "ENCX_ROTATION_LEASE_TERM", "1m";
    ROTATION_BATCH = "rotation.batch", "ENCX_ROTATION_BATCH", "500";
    PROCESS_NAME = "process_name", "ENCX_PROCESS_NAME", "the program's name and the process's number";
    ALLOW_INSECURE = "allow_insecure", "ENCX_ALLOW_INSECURE", "false";
}

/// The variable with the path of the file.
pub(crate) const CONFIG_FILE: &str = "ENCX_CONFIG";

/// The variable of the KMS that wraps new keys.
pub(crate) const KMS: &str = "ENCX_KMS";

/// The prefix of variables for further KMSs.
pub(crate) const KMS_PREFIX: &str = "ENCX_KMS_";

/// Lists all settings that have a variable.
pub(crate) fn all() -> impl Iterator<Item = &'static Key> {
    const FIRST: &[&Key] = &[&KEY_STORE];
    FIRST.iter().chain(WITHOUT_ELSE).copied()
}

/// Returns the most similar known name, if it is similar enough.
pub(crate) fn similar<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let scored = known.into_iter().map(|known| (distance(name, known), known));
    let (distance, known) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= known.len().max(3) / 3).then(|| known.to_owned())
}

/// Returns the edit distance of two names: characters changed, inserted or deleted.
fn distance(one: &str, other: &str) -> usize {
    // The length of a name in a file is unbounded.
    let one: Vec<char> = one.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (at, from) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, to) in other.chars().enumerate() {
            let substituted = diagonal + usize::from(*from != to);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_mistyped_are_found() {
        let known = ["ENCX_CACHE_TTL", "ENCX_CACHE_STATE_TTL", "ENCX_KEK"];
        assert_eq!(
            similar("ENCX_CACHE_TLL", known).as_deref(),
            Some("ENCX_CACHE_TTL")
        );
        assert_eq!(similar("ENCX_KEY", known).as_deref(), Some("ENCX_KEK"));
        assert_eq!(similar("ENCX_SOMETHING_ELSE_ALTOGETHER", known), None);
    }

    #[test]
    fn no_variable_is_taken_for_the_name_of_a_kms() {
        for key in all() {
            assert!(key.variable.starts_with("ENCX_"), "{key:?}");
            assert!(!key.variable.starts_with(KMS_PREFIX), "{key:?}");
        }
    }
}
