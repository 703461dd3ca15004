//! machines.

use crate::routes::Routes;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
}
