//! A struct whose attributes were checked: what is left is to write code.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Fields, Generics, Ident, LitStr, Path, Type, Visibility, parse_quote};

use crate::attributes::{Context, Faults, OfField, OfIndex, OfStruct, Pair};
use crate::check::{check_bound, check_columns, check_context, check_from_row};
use crate::index::{Compound, Index};
use crate::types;

pub(crate) struct Model {
    pub(crate) ident: Ident,
    pub(crate) vis: Visibility,
    pub(crate) generics: Generics,
    pub(crate) krate: Path,
    pub(crate) kind: Kind,
    pub(crate) encrypted: Encrypted,
    pub(crate) fields: Vec<Field>,
    /// Indexes over several fields.
    pub(crate) compounds: Vec<Compound>,
}

pub(crate) enum Kind {
    Fragment,
    Record {
        table: LitStr,
        sql_table: LitStr,
        context: Vec<Pair>,
    },
}

/// The struct to write.
pub(crate) struct Encrypted {
    pub(crate) ident: Ident,
    pub(crate) vis: Visibility,
    pub(crate) derives: Vec<Path>,
    pub(crate) attrs: Vec<TokenStream>,
}

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
    /// Hashed, under a context of its own if it has one.
    Password { context: Option<Context> },
    /// Copied as it is.
    Plain,
    /// The digest of an API token, encrypted and bound to other fields.
    Token { bound: Vec<Ident> },
    /// Encrypted.
    Value { json: bool },
}

/// The most parts that `RowId` takes in a tuple.
const MAX_ID_PARTS: usize = 6;

impl Model {
    pub(crate) fn read(input: &DeriveInput) -> syn::Result<Self> {
        let mut faults = Faults::default();
        let mut attributes = OfStruct::read(&input.attrs, &mut faults);
        let Some(fields) = named_fields(input) else {
            faults.add(
                input.ident.span(),
                "`Encrypt` is derived for structs with named fields; name the fields, or put what differs into one \
                 field with `#[encx(json)]`",
            );
            return Err(faults.finish().expect_err("one was just added"));
        };
        let fields: Vec<_> = fields
            .iter()
            .map(|field| Field::read(field, &mut faults))
            .collect();
        let compounds = std::mem::take(&mut attributes.indexes);
        let compounds: Vec<_> = compounds
            .into_iter()
            .filter_map(|index| Compound::read(index, &fields, &mut faults))
            .collect();
        let kind = kind(input, &attributes, &fields, &compounds, &mut faults);
        check_columns(&fields, &compounds, &mut faults);
        check_bound(&fields, &mut faults);
        let none = |field: &Field| matches!(field.role, Role::Plain | Role::Id { .. });
        if fields.iter().all(none) {
            faults.add(
                input.ident.span(),
                "nothing is encrypted here; write `#[encx(encrypt)]` above a field",
            );
        }
        let encrypted = Encrypted {
            ident: attributes
                .name
                .unwrap_or_else(|| format_ident!("Encrypted{}", input.ident.unraw())),
            vis: attributes.vis.unwrap_or_else(|| input.vis.clone()),
            derives: attributes.derives.unwrap_or_else(|| {
                vec![
                    parse_quote!(::core::clone::Clone),
                    parse_quote!(::core::fmt::Debug),
                ]
            }),
            attrs: attributes.attrs,
        };
        if encrypted.is_from_row() {
            check_from_row(&fields, &mut faults);
        }
        faults.finish()?;
        Ok(Self {
            ident: input.ident.clone(),
            vis: input.vis.clone(),
            generics: input.generics.clone(),
            krate: attributes.krate.unwrap_or_else(|| parse_quote!(::encx)),
            kind,
            encrypted,
            fields,
            compounds,
        })
    }

    /// Returns the fields that an index is over.
    pub(crate) fn parts(&self, compound: &Compound) -> impl Iterator<Item = &Field> {
        compound.fields.iter().map(|at| &self.fields[*at])
    }

    /// Returns the fields that make up the row's id.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.is_id())
    }

    /// Returns the field of this name.
    pub(crate) fn field(&self, ident: &Ident) -> Option<&Field> {
        self.fields.iter().find(|field| field.ident == *ident)
    }
}

impl Encrypted {
    /// Tells whether the struct to write reads itself from rows of sqlx.
    pub(crate) fn is_from_row(&self) -> bool {
        let last = |path: &Path| path.segments.last().is_some_and(|last| last.ident == "FromRow");
        self.derives.iter().any(last)
    }
}

fn named_fields(input: &DeriveInput) -> Option<&Fields> {
    match &input.data {
        Data::Struct(data) if matches!(data.fields, Fields::Named(_)) => Some(&data.fields),
        _ => None,
    }
}

impl Field {
    fn read(field: &syn::Field, faults: &mut Faults) -> Self {
        let mut attributes = OfField::read(&field.attrs, faults);
        // Only fields with names come here.
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

    /// Tells whether the user says how `sqlx::FromRow` reads it.
    pub(crate) fn says_how_to_read(&self) -> bool {
        let mut attrs = self.attrs.iter().map(ToString::to_string);
        attrs.any(|attr| attr.starts_with("sqlx"))
    }

    fn is_id(&self) -> bool {
        matches!(self.role, Role::Id { .. })
    }

    /// Returns the type of a value that is not `NULL`, and whether it may be.
    pub(crate) fn value_type(&self) -> (&Type, bool) {
        match types::inside_option(&self.ty) {
            Some(inner) => (inner, true),
            None => (&self.ty, false),
        }
    }
}

/// Refuses indexes of what has none.
fn check_indexes(indexes: Vec<OfIndex>, attributes: &OfField, faults: &mut Faults) -> Vec<OfIndex> {
    let reason = if attributes.json.is_some() {
        "one value of JSON has many forms, so it is not indexed; index a field with a type of its own"
    } else if attributes.encrypt.is_none() {
        "an index stands beside an encrypted value; write `#[encx(encrypt, index(..))]`, or let the database index a plain \
         column"
    } else {
        return indexes;
    };
    for index in &indexes {
        faults.add(index.span, reason);
    }
    Vec::new()
}

/// Decides what a field is; of several words that exclude each other, one is kept so that reading goes on.
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
        "what is nested says itself which of its fields are encrypted; remove `encrypt`",
    );
    exclude(
        attributes.json,
        attributes.nested,
        "`json` makes one value of the field and `nested` many; keep one of them",
    );
    exclude(
        value,
        attributes.password,
        "a password is hashed and not encrypted: nobody needs it back; remove `encrypt`, or `password` for a secret that \
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
        "a token's digest is encrypted by `token` alone; remove the other word",
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
        "name the fields that say what the token may do: `bind(owner, rights, expires_at)`; a writer of the database \
         could change them otherwise",
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

fn kind(
    input: &DeriveInput,
    attributes: &OfStruct,
    fields: &[Field],
    compounds: &[Compound],
    faults: &mut Faults,
) -> Kind {
    let here = input.ident.span();
    if let Some(fragment) = attributes.fragment {
        for (is_given, what) in [
            (attributes.table.is_some(), "`table`"),
            (attributes.sql_table.is_some(), "`sql_table`"),
            (attributes.context.is_some(), "`context`"),
        ] {
            if is_given {
                faults.add(
                    fragment,
                    format_args!(
                        "a fragment belongs to the record that it is nested in; remove {what} or `fragment`"
                    ),
                );
            }
        }
        for field in fields {
            let is_of_records = matches!(field.role, Role::Password { .. } | Role::Token { .. });
            if is_of_records || !field.indexes.is_empty() {
                faults.add(
                    field.ident.span(),
                    "a fragment has no indexes, passwords or tokens; move this field to the record",
                );
            }
        }
        for compound in compounds {
            faults.add(
                compound.index.ident.span(),
                "a fragment has no indexes, passwords or tokens; move the fields of this index to the record",
            );
        }
        for field in fields.iter().filter(|field| field.is_id()) {
            faults.add(
                field.ident.span(),
                "a fragment has no row of its own, so it has no `id`; the record that it is nested in has one",
            );
        }
        return Kind::Fragment;
    }
    let empty = || LitStr::new("?", here);
    let table = attributes.table.clone().unwrap_or_else(|| {
        faults.add(
            here,
            "the table is not named; write `#[encx(table = \"users\")]` with the table's name, which must not change \
             afterwards, or `#[encx(fragment)]` if this is nested in other structs only",
        );
        empty()
    });
    let ids = fields.iter().filter(|field| field.is_id()).count();
    if ids == 0 {
        faults.add(
            here,
            "no field is bound to its row; write `#[encx(id)]` above the field that identifies the row for good, \
             such as its primary key, or above each part of it",
        );
    }
    if ids > MAX_ID_PARTS {
        faults.add(
            here,
            format_args!("a row's id has at most {MAX_ID_PARTS} parts, not {ids}"),
        );
    }
    for field in fields {
        let of_password = match &field.role {
            Role::Password { context } => context.as_ref(),
            _ => None,
        };
        let of_indexes = field.indexes.iter().filter_map(|index| index.context.as_ref());
        for context in of_indexes.chain(of_password) {
            check_context(context, fields, faults);
        }
    }
    let of_compounds = compounds
        .iter()
        .filter_map(|compound| compound.index.context.as_ref());
    for context in of_compounds {
        check_context(context, fields, faults);
    }
    let context = match &attributes.context {
        None => {
            faults.add(
                here,
                "the encryption context is missing: it chooses the key; write \
                 `#[encx(context(\"tenantId\" = tenant_id, \"purpose\" = \"pii\"))]`, where `tenant_id` is a field and \
                 \"pii\" a text",
            );
            Vec::new()
        }
        Some(context) => check_context(context, fields, faults),
    };
    Kind::Record {
        sql_table: attributes.sql_table.clone().unwrap_or_else(|| table.clone()),
        table,
        context,
    }
}

/// Where to show what the compiler says about a field's type.
pub(crate) fn span_of(field: &Field) -> Span {
    field.ty.span()
}
