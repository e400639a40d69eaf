//! Resolves what a job imports, while QuickJS links it.

use rquickjs::loader::{ImportAttributes, Loader, Resolver};
use rquickjs::module::Declared;
use rquickjs::{Ctx, Error, Function, Module, Value};

use super::modules;
use super::sandbox::{SharedHooks, restored};

/// Finds the modules that a sandbox has, and refuses all others with an import error.
pub(super) struct Imports {
    /// Ends the names of the sandbox's own modules.
    pub(super) token: String,
    /// Where the prelude's function is that makes an import error.
    pub(super) hooks: SharedHooks,
}

impl Imports {
    fn refuse(&self, ctx: &Ctx<'_>, why: String) -> Error {
        let error = restored(ctx, &self.hooks)
            .and_then(|hooks| hooks.get::<_, Function>("refused"))
            .and_then(|refused| refused.call::<_, Value>((why,)));
        match error {
            Ok(error) => ctx.throw(error),
            Err(error) => error,
        }
    }
}

impl Resolver for Imports {
    fn resolve<'js>(
        &mut self,
        ctx: &Ctx<'js>,
        _base: &str,
        specifier: &str,
        attributes: Option<ImportAttributes<'js>>,
    ) -> rquickjs::Result<String> {
        if attributes.is_some() {
            return Err(self.refuse(ctx, format!("import attributes are not possible here: {specifier}")));
        }
        match modules::find(specifier) {
            Ok(module) => Ok(format!("{}{}", module.package(), self.token)),
            Err(why) => Err(self.refuse(ctx, why)),
        }
    }
}

/// Loads nothing: all modules that can be found are there from the start.
pub(super) struct NoFiles;

impl Loader for NoFiles {
    fn load<'js>(
        &mut self,
        _ctx: &Ctx<'js>,
        _name: &str,
        _attributes: Option<ImportAttributes<'js>>,
    ) -> rquickjs::Result<Module<'js, Declared>> {
        Err(Error::new_loading("that is not there"))
    }
}
