//! Endpoints for operators and orchestrators: probes, validation, status, metrics.

use std::sync::{Arc, OnceLock};

use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use encx::Crypto;
use encx::keys::Maintenance;
use encx::ops::metrics::{self, StoreGauges};
use encx::ops::{Health, Status, StatusOptions, Validation};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::api_error::ApiError;
use crate::keys;

/// The recorder of this process.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

#[derive(Debug)]
pub(crate) struct Operations {
    crypto: Crypto,
    admin_token: Option<Arc<str>>,
    gauges: JoinHandle<()>,
}

impl Operations {
    /// Starts publishing the key store's metrics. Of several processes, one does.
    pub(crate) fn start(crypto: &Crypto, admin_token: Option<&str>) -> Self {
        recorder();
        let mut gauges = StoreGauges::new(crypto, &maintenance(crypto));
        let publish = async move {
            loop {
                if let Err(error) = gauges.record().await {
                    tracing::warn!(%error, "the key store could not be counted");
                }
                tokio::time::sleep(StoreGauges::INTERVAL).await;
            }
        };
        Self {
            crypto: crypto.clone(),
            admin_token: admin_token.map(Arc::from),
            gauges: tokio::spawn(publish),
        }
    }

    pub(crate) fn stop(&self) {
        self.gauges.abort();
    }

    /// Returns the routes. In a real service `/metrics` and `/admin` have a separate port.
    pub(crate) fn router(&self) -> Router {
        let admin = Router::new()
            .route("/admin/kms/validate", get(validate))
            .route("/admin/kms/status", get(status))
            .route_layer(middleware::from_fn_with_state(
                self.admin_token.clone(),
                demand_token,
            ));
        Router::new()
            .route("/health/live", get(live))
            .route("/health/ready", get(ready))
            .route("/metrics", get(render))
            .merge(admin)
            .with_state(self.crypto.clone())
    }
}

/// Versions are due if a `Maintenance` of this service would rotate them.
fn maintenance(crypto: &Crypto) -> Maintenance {
    Maintenance::new(crypto.key_manager())
}

fn recorder() -> Option<&'static PrometheusHandle> {
    let install = || {
        let handle = PrometheusBuilder::new().install_recorder().ok()?;
        metrics::describe();
        Some(handle)
    };
    RECORDER.get_or_init(install).as_ref()
}

/// Does not depend on the KMS or the database: a restart would empty a cache that still serves.
async fn live(State(crypto): State<Crypto>) -> StatusCode {
    code(crypto.health().is_live())
}

async fn ready(State(crypto): State<Crypto>) -> (StatusCode, Json<Health>) {
    let health = crypto.health();
    (code(health.is_ready()), Json(health))
}

fn code(is_well: bool) -> StatusCode {
    if is_well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

#[derive(Deserialize)]
struct Validate {
    /// The tenant whose keys are checked; without it, those of the log-in.
    tenant: Option<String>,
}

async fn validate(
    State(crypto): State<Crypto>,
    Query(of): Query<Validate>,
) -> Result<(StatusCode, Json<Validation>), ApiError> {
    let context = match &of.tenant {
        Some(tenant) => keys::tenant(tenant)?,
        None => keys::login()?,
    };
    let validation = crypto.validate(&context).await;
    Ok((code(validation.passed()), Json(validation)))
}

async fn status(State(crypto): State<Crypto>) -> Json<Status> {
    let options = StatusOptions::new().due_by(&maintenance(&crypto));
    Json(crypto.status(&options).await)
}

async fn render(State(crypto): State<Crypto>) -> Result<String, StatusCode> {
    let recorder = recorder().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    metrics::record(&crypto);
    Ok(recorder.render())
}

/// Admits callers with the token. Without a configured token it refuses all.
async fn demand_token(
    State(token): State<Option<Arc<str>>>,
    request: Request,
    next: Next,
) -> Result<Response, StatusCode> {
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let is_right = token.is_some_and(|token| given.is_some_and(|given| are_equal(token.as_bytes(), given)));
    if !is_right {
        return Err(StatusCode::UNAUTHORIZED);
    }
    Ok(next.run(request).await)
}

/// Takes the same time for any token of the right length.
fn are_equal(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}
