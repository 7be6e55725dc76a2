//! The routes, with their requests and responses.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api_error::ApiError;
use crate::user::User;
use crate::users::{NewUser, Users};

type Shared = State<Arc<Users>>;

pub(crate) fn router(users: Arc<Users>) -> Router {
    Router::new()
        .route("/login", post(log_in))
        .route("/tenants/{tenant}", put(create_tenant))
        .route("/tenants/{tenant}", delete(delete_tenant))
        .route("/tenants/{tenant}/rotate", post(rotate))
        .route("/tenants/{tenant}/users", post(create).get(list))
        .route("/tenants/{tenant}/users/search", post(search))
        .route("/tenants/{tenant}/users/{id}", get(read))
        .with_state(users)
}

/// A user as callers see them.
#[derive(Serialize)]
struct Shown {
    id: Uuid,
    tenant: String,
    email: String,
    name: String,
    phone: Option<String>,
}

impl From<User> for Shown {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            tenant: user.tenant_id,
            email: user.email,
            name: user.name,
            phone: user.phone,
        }
    }
}

async fn create_tenant(State(users): Shared, Path(tenant): Path<String>) -> Result<StatusCode, ApiError> {
    users.create_tenant(&tenant).await?;
    Ok(StatusCode::CREATED)
}

/// The result of a tenant's deletion.
#[derive(Serialize)]
struct Deleted {
    /// Whether no process can read it any more. If false, call again.
    everywhere: bool,
}

/// Deletes a tenant irrevocably, including its users' data in backups of the database.
async fn delete_tenant(State(users): Shared, Path(tenant): Path<String>) -> Result<Json<Deleted>, ApiError> {
    let everywhere = users.delete_tenant(&tenant).await?;
    Ok(Json(Deleted { everywhere }))
}

#[derive(Serialize)]
struct Rotated {
    version: u32,
}

async fn rotate(State(users): Shared, Path(tenant): Path<String>) -> Result<Json<Rotated>, ApiError> {
    let version = users.rotate(&tenant).await?;
    Ok(Json(Rotated { version }))
}

async fn create(
    State(users): Shared,
    Path(tenant): Path<String>,
    Json(new): Json<NewUser>,
) -> Result<(StatusCode, Json<Shown>), ApiError> {
    let user = users.create(&tenant, new).await?;
    Ok((StatusCode::CREATED, Json(user.into())))
}

async fn read(
    State(users): Shared,
    Path((tenant, id)): Path<(String, Uuid)>,
) -> Result<Json<Shown>, ApiError> {
    Ok(Json(users.read(&tenant, id).await?.into()))
}

#[derive(Deserialize)]
struct Page {
    /// The last id of the previous page.
    #[serde(default)]
    after: Uuid,
    #[serde(default = "fifty")]
    limit: u8,
}

fn fifty() -> u8 {
    50
}

async fn list(
    State(users): Shared,
    Path(tenant): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<Shown>>, ApiError> {
    let users = users.list(&tenant, page.after, page.limit).await?;
    Ok(Json(users.into_iter().map(Shown::from).collect()))
}

/// In the body and not in the path, because paths are logged.
#[derive(Deserialize)]
struct Search {
    email: String,
}

async fn search(
    State(users): Shared,
    Path(tenant): Path<String>,
    Json(search): Json<Search>,
) -> Result<Json<Vec<Shown>>, ApiError> {
    let found = users.search(&tenant, &search.email).await?;
    Ok(Json(found.into_iter().map(Shown::from).collect()))
}

#[derive(Deserialize)]
struct LogIn {
    email: String,
    password: String,
}

/// A real service would start a session here.
async fn log_in(State(users): Shared, Json(log_in): Json<LogIn>) -> Result<Json<Shown>, ApiError> {
    Ok(Json(users.log_in(&log_in.email, &log_in.password).await?.into()))
}
