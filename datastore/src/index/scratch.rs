//! Memory that a search needs, kept from one search to the next.

use super::beam::Beam;
use super::codes::QueryCode;
use super::top::Smallest;

/// The buffers of one searching thread. They grow to what the largest search needed and are never given back.
#[derive(Default)]
pub struct Scratch {
    /// The nearest rows by exact distance.
    pub nearest: Smallest,
    /// The nearest rows by the distance of codes.
    pub candidates: Smallest,
    /// The query in the units of codes.
    pub query: QueryCode,
    /// Likewise, for each of several indexes.
    pub queries: Vec<QueryCode>,
    /// One bit for each row.
    pub visited: Vec<u64>,
    /// The search of a graph.
    pub beam: Beam,
    /// Groups of lists by the distance of their centroids.
    pub groups: Vec<u64>,
    /// Lists by the distance of theirs.
    pub lists: Vec<u64>,
    /// A row that a search treats as if it were not there: so an index is tried on its own rows.
    pub hidden: Option<u32>,
    /// Rows whose distances are wanted together, and the products of their codes with the query's.
    pub ids: Vec<u32>,
    pub dots: Vec<i32>,
    /// The distance of each row's code, in steps.
    pub distances: Vec<f32>,
}
