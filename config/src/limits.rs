//! Cache limits, outage behaviour and cipher: the settings of a `CryptoBuilder` besides KMSs and key store.

use std::time::Duration;

use encx::CryptoBuilder;
use encx::suite::Suite;

use crate::error::ConfigError;
use crate::keys;
use crate::resolve::Resolver;
use crate::source::Set;

/// The settings; the builder's defaults apply to the rest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    ttl: Option<Duration>,
    refresh_ahead: Option<f64>,
    state_ttl: Option<Duration>,
    max_keyrings: Option<u64>,
    max_concurrent_kms_calls: Option<usize>,
    load_timeout: Option<Duration>,
    create_on_first_use: Option<bool>,
    stale_encrypt: Option<Duration>,
    stale_decrypt: Option<Duration>,
    fail_closed: bool,
    connect_lazily: bool,
    start_without_kms: bool,
    suite: Option<Suite>,
    accept_uncommitted: bool,
    accept_compromised: bool,
    os_nonces: bool,
    process_name: Option<String>,
}

impl Limits {
    /// # Errors
    ///
    /// [`ConfigError::Value`].
    pub(crate) fn resolve(resolver: &mut Resolver<'_>) -> Result<Self, ConfigError> {
        let ttl = resolver.some_duration(&keys::TTL)?;
        let refresh_ahead = resolver.part(&keys::REFRESH_AHEAD)?;
        let state_ttl = resolver.some_duration(&keys::STATE_TTL)?;
        let max_keyrings = resolver.integer(&keys::MAX_KEYRINGS, 1, u64::MAX)?;
        let calls = resolver.integer(&keys::MAX_KMS_CALLS, 1, 100_000)?;
        let load_timeout = resolver.some_duration(&keys::LOAD_TIMEOUT)?;
        let create_on_first_use = resolver.boolean(&keys::CREATE_ON_FIRST_USE)?;
        let stale = resolver.duration(&keys::STALE)?;
        let stale_encrypt = resolver.duration(&keys::STALE_ENCRYPT)?.or(stale);
        let stale_decrypt = resolver.duration(&keys::STALE_DECRYPT)?.or(stale);
        let fail_closed = resolver.boolean(&keys::FAIL_CLOSED)?.unwrap_or_default();
        let connect_lazily = resolver.boolean(&keys::CONNECT_LAZILY)?.unwrap_or_default();
        let start_without_kms = resolver.boolean(&keys::START_WITHOUT_KMS)?.unwrap_or_default();
        let suite = resolver.text(&keys::SUITE)?.map(suite_of).transpose()?;
        let accept_uncommitted = resolver.boolean(&keys::ACCEPT_UNCOMMITTED)?.unwrap_or_default();
        let accept_compromised = resolver.boolean(&keys::ACCEPT_COMPROMISED)?.unwrap_or_default();
        let os_nonces = resolver.boolean(&keys::OS_NONCES)?.unwrap_or_default();
        let process_name = resolver.text(&keys::PROCESS_NAME)?.map(|set| set.value);
        Ok(Self {
            ttl,
            refresh_ahead,
            state_ttl,
            max_keyrings,
            max_concurrent_kms_calls: calls.and_then(|calls| calls.try_into().ok()),
            load_timeout,
            create_on_first_use,
            stale_encrypt,
            stale_decrypt,
            fail_closed,
            connect_lazily,
            start_without_kms,
            suite,
            accept_uncommitted,
            accept_compromised,
            os_nonces,
            process_name,
        })
    }

    /// Applies all settings to a builder.
    pub(crate) fn apply(&self, builder: CryptoBuilder) -> CryptoBuilder {
        type Method<T> = fn(CryptoBuilder, T) -> CryptoBuilder;
        fn with<T>(builder: CryptoBuilder, value: Option<T>, method: Method<T>) -> CryptoBuilder {
            match value {
                Some(value) => method(builder, value),
                None => builder,
            }
        }
        fn when(
            builder: CryptoBuilder,
            is_set: bool,
            method: fn(CryptoBuilder) -> CryptoBuilder,
        ) -> CryptoBuilder {
            if is_set { method(builder) } else { builder }
        }
        let builder = with(builder, self.ttl, CryptoBuilder::ttl);
        let builder = with(builder, self.refresh_ahead, CryptoBuilder::refresh_ahead);
        let builder = with(builder, self.state_ttl, CryptoBuilder::state_ttl);
        let builder = with(builder, self.max_keyrings, CryptoBuilder::max_keyrings);
        let calls = self.max_concurrent_kms_calls;
        let builder = with(builder, calls, CryptoBuilder::max_concurrent_kms_calls);
        let builder = with(builder, self.load_timeout, CryptoBuilder::load_timeout);
        let builder = with(
            builder,
            self.create_on_first_use,
            CryptoBuilder::create_on_first_use,
        );
        let builder = with(
            builder,
            self.stale_encrypt,
            CryptoBuilder::stale_encrypt_if_unavailable,
        );
        let builder = with(
            builder,
            self.stale_decrypt,
            CryptoBuilder::stale_decrypt_if_unavailable,
        );
        let builder = when(
            builder,
            self.fail_closed,
            CryptoBuilder::fail_closed_on_stale_state,
        );
        let builder = when(builder, self.connect_lazily, CryptoBuilder::connect_lazily);
        let builder = builder.require_kms(!self.start_without_kms);
        let builder = with(builder, self.suite, CryptoBuilder::encrypt_with);
        let builder = when(
            builder,
            self.accept_uncommitted,
            CryptoBuilder::accept_uncommitted,
        );
        let builder = when(
            builder,
            self.accept_compromised,
            CryptoBuilder::accept_compromised,
        );
        let builder = when(builder, self.os_nonces, CryptoBuilder::os_nonces);
        with(builder, self.process_name.clone(), CryptoBuilder::process_name)
    }
}

fn suite_of(set: Set<String>) -> Result<Suite, ConfigError> {
    match set.value.as_str() {
        "kc-xaes-256-gcm" => Ok(Suite::KcXaes256Gcm),
        "xaes-256-gcm" => Ok(Suite::Xaes256Gcm),
        other => Err(ConfigError::Value {
            what: format!("`{}` is not a suite", crate::units::shown(other)),
            origin: set.origin,
            write: "`kc-xaes-256-gcm`, or `xaes-256-gcm`, which needs `accept_uncommitted` too".to_owned(),
        }),
    }
}
