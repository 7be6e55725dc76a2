//! A field, after its attributes were checked.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Ident, LitStr, Type, Visibility};

use crate::attributes::{Context, Faults, OfField, OfIndex};
use crate::index::Index;
use crate::types;

pub(crate) struct Field {
    pub(crate) ident: Ident,
    /// The identifier without `r#`.
    pub(crate) name: String,
    pub(crate) vis: Visibility,
    pub(crate) ty: Type,
    pub(crate) role: Role,
    /// The column's name in the AAD.
    pub(crate) column: LitStr,
    /// The column's name in SQL.
    pub(crate) sql: LitStr,
    pub(crate) indexes: Vec<Index>,
    pub(crate) docs: Vec<syn::Attribute>,
    pub(crate) attrs: Vec<TokenStream>,
}

pub(crate) enum Role {
    /// Part of the row's id.
    Id { kind: Option<TokenStream> },
    /// A fragment.
    Nested { prefix: String },
    /// Hashed, possibly under a context of its own.
    Password { context: Option<Context> },
    /// Copied unchanged.
    Plain,
    /// The digest of an API token, encrypted and bound to other fields.
    Token { bound: Vec<Ident> },
    /// Encrypted.
    Value { json: bool },
}

impl Field {
    pub(crate) fn read(field: &syn::Field, faults: &mut Faults) -> Self {
        let mut attributes = OfField::read(&field.attrs, faults);
        // Only named fields get here.
        let ident = field.ident.clone().unwrap_or_else(|| format_ident!("_"));
        let name = ident.unraw().to_string();
        let column = attributes
            .rename
            .take()
            .unwrap_or_else(|| LitStr::new(&name, ident.span()));
        let indexes = std::mem::take(&mut attributes.indexes);
        let indexes = check_indexes(indexes, &attributes, faults).into_iter();
        let indexes = indexes
            .filter_map(|index| Index::read(index, &ident, &column, &field.ty, faults))
            .collect();
        let role = role(&mut attributes, faults);
        let docs = field.attrs.iter().filter(|attr| attr.path().is_ident("doc"));
        Self {
            name,
            vis: field.vis.clone(),
            ty: field.ty.clone(),
            role,
            sql: attributes.sql_column.unwrap_or_else(|| column.clone()),
            column,
            indexes,
            docs: docs.cloned().collect(),
            attrs: attributes.attrs,
            ident,
        }
    }

    /// Tells whether the user configures how `sqlx::FromRow` reads it.
    pub(crate) fn says_how_to_read(&self) -> bool {
        let mut attrs = self.attrs.iter().map(ToString::to_string);
        attrs.any(|attr| attr.starts_with("sqlx"))
    }

    pub(crate) fn is_id(&self) -> bool {
        matches!(self.role, Role::Id { .. })
    }

    /// Returns the type of a non-NULL value, and whether NULL is possible.
    pub(crate) fn value_type(&self) -> (&Type, bool) {
        match types::inside_option(&self.ty) {
            Some(inner) => (inner, true),
            None => (&self.ty, false),
        }
    }
}

/// Refuses indexes on fields that cannot have any.
fn check_indexes(indexes: Vec<OfIndex>, attributes: &OfField, faults: &mut Faults) -> Vec<OfIndex> {
    let reason = if attributes.json.is_some() {
        "one value of JSON has many forms, so it is not indexed; index a field with a type of its own"
    } else if attributes.encrypt.is_none() {
        "an index requires an encrypted value; write `#[encx(encrypt, index(..))]`, or let the database index a plain \
         column"
    } else {
        return indexes;
    };
    for index in &indexes {
        faults.add(index.span, reason);
    }
    Vec::new()
}

/// Decides the role of a field. Of several words that exclude each other, one is kept so that parsing continues.
fn role(attributes: &mut OfField, faults: &mut Faults) -> Role {
    let value = attributes.encrypt.or(attributes.json);
    let mut exclude = |one: Option<Span>, other: Option<Span>, message: &str| {
        if let (Some(_), Some(span)) = (one, other) {
            faults.add(span, message);
        }
    };
    exclude(
        value,
        attributes.id,
        "a row's id is not encrypted: rows are found by it; remove `encrypt` or `id`",
    );
    exclude(
        attributes.nested,
        attributes.id,
        "a row's id is not nested; remove `nested` or `id`",
    );
    exclude(
        attributes.encrypt,
        attributes.nested,
        "a nested struct declares itself which of its fields are encrypted; remove `encrypt`",
    );
    exclude(
        attributes.json,
        attributes.nested,
        "`json` makes one value of the field and `nested` many; keep one of them",
    );
    exclude(
        value,
        attributes.password,
        "a password is hashed, not encrypted, and cannot be decrypted; remove `encrypt`, or `password` for a secret that \
         has to be read again",
    );
    exclude(
        attributes.id.or(attributes.nested),
        attributes.password,
        "a password is neither an id nor nested; keep `password` alone",
    );
    exclude(
        value
            .or(attributes.id)
            .or(attributes.nested)
            .or(attributes.password),
        attributes.token,
        "`token` already encrypts the digest; remove the other word",
    );
    exclude(
        attributes
            .bind
            .as_ref()
            .map(|bind| bind.span)
            .filter(|_| attributes.token.is_none()),
        attributes.bind.as_ref().map(|bind| bind.span),
        "only a token is bound to other columns: write `#[encx(token, bind(..))]`",
    );
    exclude(
        attributes
            .token
            .filter(|_| attributes.bind.as_ref().is_none_or(|bind| bind.fields.is_empty())),
        attributes.token,
        "name the fields that say what the token may do: `bind(owner, rights, expires_at)`; otherwise they \
         could be changed in the database",
    );
    if attributes.id.is_some() {
        let kind = attributes.id_kind.as_ref().map(|kind| id_kind(kind, faults));
        Role::Id { kind }
    } else if attributes.nested.is_some() {
        let prefix = attributes.nested_prefix.as_ref().map(LitStr::value);
        Role::Nested {
            prefix: prefix.unwrap_or_default(),
        }
    } else if attributes.token.is_some() {
        let bind = attributes.bind.take();
        Role::Token {
            bound: bind.map(|bind| bind.fields).unwrap_or_default(),
        }
    } else if attributes.password.is_some() {
        Role::Password {
            context: attributes.password_context.take(),
        }
    } else if value.is_some() {
        Role::Value {
            json: attributes.json.is_some(),
        }
    } else {
        Role::Plain
    }
}

fn id_kind(kind: &LitStr, faults: &mut Faults) -> TokenStream {
    match kind.value().as_str() {
        "bytes" => quote!(Bytes),
        "integer" => quote!(Integer),
        "text" => quote!(Text),
        "uuid" => quote!(Uuid),
        _ => {
            faults.add(
                kind.span(),
                "the kind of a row's id is \"bytes\", \"integer\", \"text\" or \"uuid\"",
            );
            quote!(Bytes)
        }
    }
}

/// Returns where compiler errors about a field's type should point.
pub(crate) fn span_of(field: &Field) -> Span {
    field.ty.span()
}
