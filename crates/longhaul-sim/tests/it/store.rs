//! The simulated store keeps what every store must, with owners that live by locks and by leases.

use std::sync::Arc;

use longhaul_sim::SimStore;
use longhaul_store::Store;

async fn by_locks() -> (Arc<dyn Store>, ()) {
    (SimStore::undisturbed(false), ())
}

mod locks {
    longhaul_store::conformance_tests!(super::by_locks);
}

mod leases {
    use super::{Arc, SimStore, Store};

    async fn by_leases() -> (Arc<dyn Store>, ()) {
        (SimStore::undisturbed(true), ())
    }

    longhaul_store::conformance_tests!(by_leases);
}
