//! Plugins in the process that owns them: for authors' tools and tests. The daemon runs them in workers.

use std::sync::Arc;

use wasmtime::Engine;

use crate::body::{BoxFuture, NotPut, Place, Put, Seat};
use crate::code::Code;
use crate::fault::chain;
use crate::instance::{Linked, LocalSeat};
use crate::ticker::Ticker;

pub(crate) struct Local {
    pub engine: Engine,
    pub ticker: Arc<Ticker>,
}

impl Place for Local {
    fn put(&self, put: Put) -> BoxFuture<'_, Result<Box<dyn Seat>, NotPut>> {
        Box::pin(async move {
            let code = put
                .compiled
                .metadata()
                .map_err(wasmtime::Error::from)
                .and_then(|m| Code::new(&self.engine, &put.compiled, m.len()))
                .map_err(|e| NotPut::Stale(chain(&e)))?;
            let linked = Linked::new(&self.engine, self.ticker.clone(), code, &put.capabilities, put.world)
                .map_err(|e| NotPut::Unlinkable(chain(&e)))?;
            Ok(Box::new(LocalSeat { linked, bounds: put.bounds }) as Box<dyn Seat>)
        })
    }
}
