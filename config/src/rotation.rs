//! How long keys encrypt: settings of scheduled maintenance.

use std::time::Duration;

use encx::keys::{KeyManager, KeyUsage, Maintenance, RotationPeriod};

use crate::document::{Node, Section, Value};
use crate::error::ConfigError;
use crate::keys;
use crate::resolve::{Raw, Resolver};
use crate::rule::check_pair;
use crate::source::Origin;
use crate::units::{self, Refused, duration_text};

/// The settings; the defaults of `Maintenance` apply to the rest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rotation {
    every: Option<Duration>,
    usages: Vec<KeyUsage>,
    interval: Option<Duration>,
    publish_deadline: Option<Duration>,
    lease_term: Option<Duration>,
    batch: Option<u32>,
    by_pair: Vec<(String, String, RotationPeriod)>,
}

impl Rotation {
    /// # Errors
    ///
    /// [`ConfigError::Value`]; [`ConfigError::UnknownKey`].
    pub(crate) fn resolve(resolver: &mut Resolver<'_>) -> Result<Self, ConfigError> {
        let every = resolver.some_duration(&keys::ROTATE_EVERY)?;
        let usages = resolver.list(&keys::ROTATE_USAGES, usage_of, |usage| usage.name().to_owned())?;
        let interval = resolver.some_duration(&keys::ROTATION_INTERVAL)?;
        let publish_deadline = resolver.duration(&keys::PUBLISH_DEADLINE)?;
        let lease_term = resolver.some_duration(&keys::LEASE_TERM)?;
        let batch = resolver.integer(&keys::ROTATION_BATCH, 1, 1000)?;
        let mut by_pair = Vec::new();
        let mut described = Vec::new();
        if let Some(rotation) = resolver.section("rotation") {
            for section in rotation.sections("for")? {
                let origin = section.origin();
                let (key, value, period) = period_of(section)?;
                let text = match period {
                    RotationPeriod::Every(period) => duration_text(period),
                    _ => "never".to_owned(),
                };
                described.push((format!("rotation.for {key} = {value}"), text, origin));
                by_pair.push((key, value, period));
            }
        }
        for (key, text, origin) in described {
            resolver.describe_file(key, text, &origin);
        }
        Ok(Self {
            every,
            usages,
            interval,
            publish_deadline,
            lease_term,
            batch: batch.and_then(|batch| batch.try_into().ok()),
            by_pair,
        })
    }

    /// Configures maintenance.
    pub(crate) fn of(&self, manager: KeyManager) -> Maintenance {
        let mut maintenance = Maintenance::new(manager);
        if let Some(every) = self.every {
            maintenance = maintenance.rotate_every(every);
        }
        for (key, value, period) in &self.by_pair {
            maintenance = match period {
                RotationPeriod::Every(period) => maintenance.rotate_every_for(key, value, *period),
                _ => maintenance.never_rotate_for(key, value),
            };
        }
        for usage in &self.usages {
            maintenance = maintenance.also_rotate(*usage);
        }
        if let Some(interval) = self.interval {
            maintenance = maintenance.interval(interval);
        }
        if let Some(deadline) = self.publish_deadline {
            maintenance = maintenance.publish_deadline(deadline);
        }
        if let Some(term) = self.lease_term {
            maintenance = maintenance.lease_term(term);
        }
        if let Some(batch) = self.batch {
            maintenance = maintenance.batch(batch);
        }
        maintenance
    }
}

fn period_of(mut section: Section) -> Result<(String, String, RotationPeriod), ConfigError> {
    let pair = section.needed_text("pair", "`pair = \"purpose\"`, the key of a pair of contexts")?;
    let value = section.needed_text("value", "`value = \"payments\"`, the value of that pair")?;
    check_pair(&pair, &value.value)?;
    let every = section.needed_text("every", "`every = \"30days\"` or `every = \"never\"`")?;
    section.finish()?;
    let period = match every.value.as_str() {
        "never" => RotationPeriod::Never,
        text => match units::duration(text) {
            Ok(Duration::ZERO) => {
                return Err(ConfigError::Value {
                    origin: every.origin,
                    what: "it must be longer than zero".to_owned(),
                    write: "a number and a unit, such as `30days`, or `never`".to_owned(),
                });
            }
            Ok(period) => RotationPeriod::Every(period),
            Err(Refused { what, write }) => {
                return Err(ConfigError::Value {
                    origin: every.origin,
                    what,
                    write,
                });
            }
        },
    };
    Ok((pair.value, value.value, period))
}

fn usage_of(origin: &Origin, raw: Raw) -> Result<KeyUsage, ConfigError> {
    let name = match raw {
        Raw::Text(text)
        | Raw::Node(Node {
            value: Value::Text(text),
            ..
        }) => text,
        Raw::Node(node) => node.value.kind().to_owned(),
    };
    KeyUsage::ALL
        .into_iter()
        .find(|usage| usage.name() == name)
        .ok_or_else(|| {
            let all: Vec<_> = KeyUsage::ALL
                .iter()
                .map(|usage| format!("`{}`", usage.name()))
                .collect();
            ConfigError::Value {
                origin: origin.clone(),
                what: format!("`{}` is not a key usage", units::shown(&name)),
                write: format!("one of {}", all.join(", ")),
            }
        })
}
