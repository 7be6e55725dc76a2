//! A struct, after its attributes were checked: ready for code generation.

use proc_macro2::TokenStream;
use quote::format_ident;
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Fields, Generics, Ident, LitStr, Path, Visibility, parse_quote};

use crate::attributes::{Faults, OfStruct, Pair};
use crate::check::{check_bound, check_columns, check_context, check_from_row};
use crate::compound::Compound;
use crate::field::{Field, Role};

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

/// The generated struct.
pub(crate) struct Encrypted {
    pub(crate) ident: Ident,
    pub(crate) vis: Visibility,
    pub(crate) derives: Vec<Path>,
    pub(crate) attrs: Vec<TokenStream>,
}

/// The greatest number of parts that `RowId` takes in a tuple.
const MAX_ID_PARTS: usize = 6;

impl Model {
    pub(crate) fn read(input: &DeriveInput) -> syn::Result<Self> {
        let mut faults = Faults::default();
        let mut attributes = OfStruct::read(&input.attrs, &mut faults);
        let Some(fields) = named_fields(input) else {
            faults.add(
                input.ident.span(),
                "`Encrypt` is derived for structs with named fields; name the fields, or put the variants into one \
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

    /// Returns the fields of an index.
    pub(crate) fn parts(&self, compound: &Compound) -> impl Iterator<Item = &Field> {
        compound.fields.iter().map(|at| &self.fields[*at])
    }

    /// Returns the fields of the row's id.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.is_id())
    }

    /// Returns the field of this name.
    pub(crate) fn field(&self, ident: &Ident) -> Option<&Field> {
        self.fields.iter().find(|field| field.ident == *ident)
    }
}

impl Encrypted {
    /// Tells whether the generated struct derives `sqlx::FromRow`.
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
             afterwards, or `#[encx(fragment)]` if this struct is only nested in others",
        );
        empty()
    });
    let ids = fields.iter().filter(|field| field.is_id()).count();
    if ids == 0 {
        faults.add(
            here,
            "no field is bound to its row; write `#[encx(id)]` above the field that identifies the row permanently, \
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
                "the encryption context is missing: it selects the key; write \
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
