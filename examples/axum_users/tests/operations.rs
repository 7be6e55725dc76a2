//! What operators see of the service while its KMS and its database are stopped.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use axum_users::{Service, Settings};
use common::Running;
use common::server::Server;
use encx_config::Loader;
use encx_testkit::MemoryKms;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

const TOKEN: &str = "of-operators";

/// The time within which a probe must be correct.
const SOON: Duration = Duration::from_secs(1);

async fn start(database_url: &str, kms: &MemoryKms) -> Running {
    let kms = kms.clone();
    let loader = Loader::new()
        .env([("ENCX_KMS", "switchable:"), ("ENCX_KEY_STORE", database_url)])
        .kms_scheme("switchable", move |_| std::future::ready(Ok(kms.clone())));
    let settings = Settings {
        encx: loader.load().unwrap(),
        listen: "127.0.0.1:0".to_owned(),
        admin_token: Some(TOKEN.to_owned()),
        new_kek_file: None,
    };
    Running::serve(Service::start(&settings).await.unwrap()).await
}

async fn create_tenant(service: &Running, tenant: &str) -> StatusCode {
    let path = format!("/tenants/{tenant}");
    service.call(Method::PUT, &path, None).await.0
}

async fn create_user(service: &Running, tenant: &str) -> (StatusCode, Value) {
    let user =
        json!({"email": "ada@example.org", "name": "Ada", "phone": null, "password": "difference engine"});
    service.post(&format!("/tenants/{tenant}/users"), user).await
}

/// Requests both probes: the status codes, and the health.
async fn probe(service: &Running) -> (StatusCode, StatusCode, Value) {
    let (live, _) = service.get("/health/live").await;
    let (ready, health) = service.get("/health/ready").await;
    (live, ready, health)
}

fn status_of(health: &Value, name: &str) -> String {
    let mut checks = health["checks"].as_array().unwrap().iter();
    let check = checks.find(|check| check["name"] == name).unwrap();
    check["status"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_tell_the_truth_while_kms_and_database_are_stopped() {
    let mut server = Server::start_new();
    let kms = MemoryKms::new();
    let service = start(&server.url(), &kms).await;
    assert_eq!(create_tenant(&service, "acme").await, StatusCode::CREATED);
    assert_eq!(create_user(&service, "acme").await.0, StatusCode::CREATED);
    let (live, ready, health) = probe(&service).await;
    assert_eq!((live, ready), (StatusCode::OK, StatusCode::OK));
    assert_eq!(health["status"], "UP", "{health}");

    // The KMS stops: cached keys keep serving.
    kms.set_unavailable(true);
    assert_ne!(create_tenant(&service, "other").await, StatusCode::CREATED);
    let failed = Instant::now();
    let (live, ready, health) = probe(&service).await;
    assert!(failed.elapsed() < SOON);
    assert_eq!((live, ready), (StatusCode::OK, StatusCode::OK));
    assert_eq!(health["status"], "DEGRADED", "{health}");
    assert_eq!(
        (status_of(&health, "kms"), status_of(&health, "key_store")),
        ("DOWN".into(), "UP".into())
    );
    let (status, users) = service.get("/tenants/acme/users").await;
    assert_eq!((status, users[0]["name"].as_str()), (StatusCode::OK, Some("Ada")));

    // Probes never call the KMS.
    let calls = kms.calls().total();
    for _ in 0..100 {
        assert_eq!(service.get("/health/ready").await.0, StatusCode::OK);
        assert_eq!(service.get("/health/live").await.0, StatusCode::OK);
    }
    service.get("/metrics").await;
    assert_eq!(kms.calls().total(), calls);
    kms.set_unavailable(false);
    assert_eq!(create_tenant(&service, "other").await, StatusCode::CREATED);
    assert_eq!(probe(&service).await.2["status"], "UP");

    // The database stops: no probe waits for it, and the first failed call shows.
    server.stop();
    assert_ne!(create_tenant(&service, "third").await, StatusCode::CREATED);
    let failed = Instant::now();
    let (live, ready, health) = probe(&service).await;
    assert_eq!((live, ready), (StatusCode::OK, StatusCode::OK));
    assert!(failed.elapsed() < SOON);
    assert_eq!(health["status"], "DEGRADED", "{health}");
    assert_eq!(status_of(&health, "key_store"), "DOWN", "{health}");
    for _ in 0..100 {
        assert_eq!(service.get("/health/ready").await.0, StatusCode::OK);
    }

    // The next poll detects its return.
    server.start();
    until_status(&service, "UP").await;
    service.end().await;
}

/// Waits for a result of polls, within `state_ttl`.
async fn until_status(service: &Running, status: &str) -> Value {
    let began = Instant::now();
    loop {
        let (_, _, health) = probe(service).await;
        if health["status"] == status {
            return health;
        }
        assert!(began.elapsed() < Duration::from_secs(100), "{health}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn validation_and_status_are_for_who_has_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let database_url = format!("sqlite:{}", folder.path().join("users.db").display());
    let kms = MemoryKms::new();
    let service = start(&database_url, &kms).await;
    create_tenant(&service, "acme").await;
    create_user(&service, "acme").await;
    for path in ["/admin/kms/validate?tenant=acme", "/admin/kms/status"] {
        for token in ["", "of-operatorz", "of-operators!", "of"] {
            let (status, body) = service.call_as(token, Method::GET, path, None).await;
            assert_eq!((status, body), (StatusCode::UNAUTHORIZED, Value::Null), "{token}");
        }
    }
    let admin = |path: &'static str| service.call_as(TOKEN, Method::GET, path, None);
    let (status, validation) = admin("/admin/kms/validate?tenant=acme").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(validation["overall_status"], "PASS", "{validation}");
    assert_eq!(validation["tests"]["cache_hit"], "PASS", "{validation}");
    let (status, report) = admin("/admin/kms/status").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(report["health"]["status"], "UP");
    assert_eq!(report["kms"][0]["keks"][0]["description"]["state"], "enabled");
    assert_eq!(report["due"]["versions"], 0);
    let versions: u64 = report["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|count| count["versions"].as_u64().unwrap())
        .sum();
    // The tenant's, and the log-in's index and pepper.
    assert_eq!(versions, 3, "{report}");
    kms.set_unavailable(true);
    let (status, validation) = admin("/admin/kms/validate?tenant=acme").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(validation["tests"]["generate_data_key"], "FAIL");
    service.end().await;
}

#[tokio::test]
async fn metrics_are_those_that_are_documented() {
    let folder = tempfile::tempdir().unwrap();
    let database_url = format!("sqlite:{}", folder.path().join("users.db").display());
    let service = start(&database_url, &MemoryKms::new()).await;
    create_tenant(&service, "acme").await;
    create_user(&service, "acme").await;
    let began = Instant::now();
    // A separate task publishes the metrics of the key store.
    let rendered = loop {
        let (status, rendered) = service.get("/metrics").await;
        assert_eq!(status, StatusCode::OK);
        let rendered = rendered.as_str().unwrap().to_owned();
        if rendered.contains("encx_due_versions") {
            break rendered;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{rendered}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let samples = rendered.lines().filter(|line| line.starts_with("encx_"));
    let names: BTreeSet<_> = samples.filter_map(|line| line.split(['{', ' ']).next()).collect();
    let documented: BTreeSet<_> = encx::ops::metrics::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(names, documented);
    for metric in encx::ops::metrics::ALL {
        assert!(
            rendered.contains(&format!("# HELP {} {}", metric.name, metric.help)),
            "{}",
            metric.name
        );
    }
    assert!(!rendered.contains("acme"), "no label names a tenant");
    service.end().await;
}
