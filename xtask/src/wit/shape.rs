//! What a package promises, as a table: each function, type, and item of a world under its name, written so that two
//! of them are the same if, and only if, a component can't tell.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use semver::Version;
use wit_parser::{
    Function, FunctionKind, Handle, InterfaceId, PackageId, Resolve, Type, TypeDefKind, TypeId, TypeOwner,
    UnresolvedPackageGroup, WorldItem, WorldKey,
};

use super::NAMESPACE;

pub struct Package {
    /// Without the namespace.
    pub name: String,
    pub version: Version,
    pub files: Vec<PathBuf>,
    pub items: BTreeMap<String, Item>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    pub shape: String,
    /// A plugin must have it: a function of an interface that a world exports, or an export of a world.
    pub asked: bool,
    /// The interface or world that it stands in.
    pub within: String,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAMESPACE}:{} {}", self.name, self.version)
    }
}

/// The package in a folder and those in its `deps`.
pub fn packages_of(folder: &Path) -> Result<Vec<Package>> {
    let mut folders = vec![folder.to_owned()];
    if let Ok(entries) = std::fs::read_dir(folder.join("deps")) {
        for entry in entries {
            folders.push(entry?.path());
        }
    }
    folders.sort();
    packages_in(&folders)
}

/// The packages in these folders, one each, of which one may use another.
pub fn packages_in(folders: &[PathBuf]) -> Result<Vec<Package>> {
    let mut groups = Vec::new();
    for folder in folders {
        let group = UnresolvedPackageGroup::parse_dir(folder)
            .with_context(|| format!("cannot parse {}", folder.display()))?;
        groups.push(group);
    }
    let files: BTreeMap<String, PathBuf> =
        groups.iter().zip(folders).map(|(g, f)| (g.main.name.to_string(), f.clone())).collect();
    let mut resolve = Resolve::default();
    let Some(first) = groups.pop() else { return Ok(Vec::new()) };
    resolve.push_groups(first, groups).map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut packages = Vec::new();
    for (id, package) in resolve.packages.iter().filter(|(_, p)| p.name.namespace == NAMESPACE) {
        let version = package.name.version.clone();
        let version = version.with_context(|| format!("the package {} has no version", package.name))?;
        let folder = files.get(&package.name.to_string()).context("a package without a folder")?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            files.push(entry?.path());
        }
        files.retain(|file| file.extension().is_some_and(|e| e == "wit"));
        files.sort();
        let items = items(&resolve, id);
        packages.push(Package { name: package.name.name.clone(), version, files, items });
    }
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(packages)
}

fn items(resolve: &Resolve, package: PackageId) -> BTreeMap<String, Item> {
    let Some(found) = resolve.packages.get(package) else { return BTreeMap::new() };
    let mut items = BTreeMap::new();
    let mut exported: BTreeSet<InterfaceId> = BTreeSet::new();
    for (name, world) in &found.worlds {
        let Some(world) = resolve.worlds.get(*world) else { continue };
        items.insert(name.clone(), Item { shape: "world".to_owned(), asked: false, within: String::new() });
        for (word, list, asked) in [("import", &world.imports, false), ("export", &world.exports, true)] {
            for (key, item) in list {
                if let (WorldItem::Interface { id, .. }, true) = (item, asked) {
                    exported.insert(*id);
                }
                let key = match key {
                    WorldKey::Name(name) => name.clone(),
                    WorldKey::Interface(id) => interface(resolve, *id, package),
                };
                let shape = match item {
                    WorldItem::Function(f) => function(resolve, f),
                    WorldItem::Interface { .. } => "interface".to_owned(),
                    WorldItem::Type { id, .. } => definition(resolve, *id),
                };
                items.insert(format!("{name} {word} {key}"), Item { shape, asked, within: name.clone() });
            }
        }
    }
    for (name, id) in &found.interfaces {
        let Some(interface) = resolve.interfaces.get(*id) else { continue };
        let item = |shape, asked| Item { shape, asked, within: name.clone() };
        items.insert(
            name.clone(),
            Item { shape: "interface".to_owned(), asked: false, within: String::new() },
        );
        for (type_name, id) in &interface.types {
            items.insert(format!("{name}.{type_name}"), item(definition(resolve, *id), false));
        }
        for (function_name, f) in &interface.functions {
            let shape = function(resolve, f);
            items.insert(format!("{name}.{function_name}"), item(shape, exported.contains(id)));
        }
    }
    items
}

/// An interface's name; of another package with its version's line.
fn interface(resolve: &Resolve, id: InterfaceId, within: PackageId) -> String {
    let own = resolve.interfaces.get(id).filter(|i| i.package == Some(within));
    match own.and_then(|i| i.name.clone()) {
        Some(name) => name,
        None => resolve.canonicalized_id_of(id).unwrap_or_default(),
    }
}

fn function(resolve: &Resolve, f: &Function) -> String {
    let asynchronous = !matches!(
        f.kind,
        FunctionKind::Freestanding
            | FunctionKind::Method(_)
            | FunctionKind::Static(_)
            | FunctionKind::Constructor(_)
    );
    let parameters: Vec<String> =
        f.params.iter().map(|p| format!("{}: {}", p.name, named(resolve, &p.ty))).collect();
    let result = f.result.as_ref().map(|ty| format!(" -> {}", named(resolve, ty))).unwrap_or_default();
    format!("{}func({}){result}", if asynchronous { "async " } else { "" }, parameters.join(", "))
}

/// A type where it is used: by its name if it has one of its own.
fn named(resolve: &Resolve, ty: &Type) -> String {
    let Type::Id(id) = ty else { return format!("{ty:?}").to_lowercase() };
    let Some(def) = resolve.types.get(*id) else { return String::new() };
    match (&def.kind, &def.name, def.owner) {
        (TypeDefKind::Type(other), ..) => named(resolve, other),
        (_, Some(name), TypeOwner::Interface(owner)) => {
            format!("{}.{name}", resolve.canonicalized_id_of(owner).unwrap_or_default())
        }
        (_, Some(name), _) => name.clone(),
        (_, None, _) => definition(resolve, *id),
    }
}

/// What a type consists of.
fn definition(resolve: &Resolve, id: TypeId) -> String {
    let Some(def) = resolve.types.get(id) else { return String::new() };
    let of = |ty: &Type| named(resolve, ty);
    let maybe = |ty: &Option<Type>| ty.as_ref().map_or_else(|| "_".to_owned(), of);
    let list = |items: Vec<String>| items.join(", ");
    match &def.kind {
        TypeDefKind::Record(r) => {
            let fields = r.fields.iter().map(|f| format!("{}: {}", f.name, of(&f.ty))).collect();
            format!("record {{ {} }}", list(fields))
        }
        TypeDefKind::Variant(v) => {
            let case = |ty: &Option<Type>| ty.as_ref().map(|ty| format!("({})", of(ty))).unwrap_or_default();
            let cases = v.cases.iter().map(|c| format!("{}{}", c.name, case(&c.ty))).collect();
            format!("variant {{ {} }}", list(cases))
        }
        TypeDefKind::Enum(e) => {
            format!("enum {{ {} }}", list(e.cases.iter().map(|c| c.name.clone()).collect()))
        }
        TypeDefKind::Flags(f) => {
            format!("flags {{ {} }}", list(f.flags.iter().map(|f| f.name.clone()).collect()))
        }
        TypeDefKind::Tuple(t) => format!("tuple<{}>", list(t.types.iter().map(of).collect())),
        TypeDefKind::Resource => "resource".to_owned(),
        TypeDefKind::Handle(Handle::Own(id)) => format!("own<{}>", of(&Type::Id(*id))),
        TypeDefKind::Handle(Handle::Borrow(id)) => format!("borrow<{}>", of(&Type::Id(*id))),
        TypeDefKind::Option(ty) => format!("option<{}>", of(ty)),
        TypeDefKind::Result(r) => format!("result<{}, {}>", maybe(&r.ok), maybe(&r.err)),
        TypeDefKind::List(ty) => format!("list<{}>", of(ty)),
        TypeDefKind::Map(key, value) => format!("map<{}, {}>", of(key), of(value)),
        TypeDefKind::FixedLengthList(ty, length) => format!("list<{}, {length}>", of(ty)),
        TypeDefKind::Future(ty) => format!("future<{}>", maybe(ty)),
        TypeDefKind::Stream(ty) => format!("stream<{}>", maybe(ty)),
        TypeDefKind::Type(ty) => of(ty),
        TypeDefKind::Unknown => "unknown".to_owned(),
    }
}
