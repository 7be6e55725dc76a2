//! A KMS client per region, created on first use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_sdk_kms::Client;
use aws_sdk_kms::config::{Builder, Region};

use crate::endpoint::Endpoint;
use crate::proxy::Proxy;
use crate::requests::Requests;

/// How to reach KMS in each region.
pub(crate) struct Clients {
    base: Builder,
    endpoints: Endpoints,
    made: Mutex<BTreeMap<String, Made>>,
    requests: Requests,
    /// Whether the SDK's own HTTP client, which takes its proxy from the environment, sends the requests.
    is_sdk_s_http: bool,
}

/// A client, and the proxy on the way to its KMS.
#[derive(Clone)]
struct Made {
    client: Client,
    proxy: Option<Proxy>,
}

/// The endpoints other than AWS's defaults.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    /// Endpoints that are set for one region.
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
    pub(crate) fn new(base: Builder, endpoints: Endpoints, is_sdk_s_http: bool) -> Self {
        let requests = Requests::default();
        Self {
            base: base.interceptor(requests.clone()),
            endpoints,
            made: Mutex::default(),
            requests,
            is_sdk_s_http,
        }
    }

    /// Returns the counter of the requests of all clients.
    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Returns the proxy on the way to a region's KMS.
    pub(crate) fn proxy(&self, region: &str) -> Option<Proxy> {
        self.make(region).proxy
    }

    pub(crate) fn client(&self, region: &str) -> Client {
        self.make(region).client
    }

    fn make(&self, region: &str) -> Made {
        if let Some(made) = self.made().get(region) {
            return made.clone();
        }
        let own = || format!("https://kms.{region}.amazonaws.com");
        let address = self
            .endpoint(region)
            .map_or_else(own, |endpoint| endpoint.url().to_owned());
        let proxy = Proxy::before(&address).filter(|_| self.is_sdk_s_http);
        // Not under the lock: it may run code of the caller's configuration. If two are created concurrently, one is
        // kept.
        let mut config = self.base.clone().region(Region::new(region.to_owned()));
        // Also without an endpoint: `base` has the one from the environment, which may be another region's.
        config.set_endpoint_url(self.endpoint(region).map(|endpoint| endpoint.url().to_owned()));
        let client = Client::from_conf(config.build());
        let made = Made { client, proxy };
        let made = self.made().entry(region.to_owned()).or_insert(made).clone();
        if let (None, Some(shared)) = (self.endpoint(region), &self.endpoints.shared) {
            tracing::warn!(
                target: "encx::aws",
                region,
                endpoint = shared.url(),
                set_by = shared.set_by(),
                "this endpoint is another region's, so AWS's own endpoint is used; `endpoint_url_for` sets one"
            );
        }
        made
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<String, Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the endpoint of a region, unless it is AWS's own.
    pub(crate) fn endpoint(&self, region: &str) -> Option<&Endpoint> {
        self.endpoints.of(region)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}
