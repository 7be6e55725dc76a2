//! A KMS client for each region, made when it is first needed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_sdk_kms::Client;
use aws_sdk_kms::config::{Builder, Region};

use crate::endpoint::Endpoint;

/// How to reach KMS in each region.
pub(crate) struct Clients {
    base: Builder,
    endpoints: Endpoints,
    made: Mutex<BTreeMap<String, Client>>,
}

/// The endpoints that are not AWS's own defaults.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    /// Those that were set for one region.
    pub(crate) of_region: BTreeMap<String, Endpoint>,
    /// For all other regions, unless its host names one.
    pub(crate) shared: Option<Endpoint>,
}

impl Endpoints {
    /// Returns the endpoint of a region, unless it is AWS's own.
    pub(crate) fn of(&self, region: &str) -> Option<&Endpoint> {
        let shared = || self.shared.as_ref().filter(|shared| shared.can_serve(region));
        self.of_region.get(region).or_else(shared)
    }
}

impl Clients {
    pub(crate) fn new(base: Builder, endpoints: Endpoints) -> Self {
        Self {
            base,
            endpoints,
            made: Mutex::default(),
        }
    }

    pub(crate) fn client(&self, region: &str) -> Client {
        if let Some(client) = self.made().get(region) {
            return client.clone();
        }
        // Not under the lock: it may run code of the caller's configuration. Of two that are made at once one is kept.
        let mut config = self.base.clone().region(Region::new(region.to_owned()));
        // Also where there is none: `base` has the one that the environment names, which may be another region's.
        config.set_endpoint_url(self.endpoint(region).map(str::to_owned));
        let client = Client::from_conf(config.build());
        let client = self.made().entry(region.to_owned()).or_insert(client).clone();
        if let (None, Some(shared)) = (self.endpoints.of(region), &self.endpoints.shared) {
            tracing::warn!(
                target: "encx::aws",
                region,
                endpoint = shared.url(),
                set_by = shared.set_by(),
                "this endpoint is another region's, so AWS's own endpoint is used; `endpoint_url_for` sets one"
            );
        }
        client
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<String, Client>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the endpoint of a region, unless it is AWS's own.
    pub(crate) fn endpoint(&self, region: &str) -> Option<&str> {
        self.endpoints.of(region).map(Endpoint::url)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}
