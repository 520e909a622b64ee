//! The prefix cache: finished blocks of keys and values, found again by the tokens they stand for.
//!
//! A block is known by a chain of SHA-256 digests over its domain, the blocks before it and its own tokens, so that no
//! choice of tokens makes two prefixes collide. The domain is made by the server from who asks and what may inform the
//! answer; requests of two domains never share a block, and so cannot learn of each other by timing either.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use safelmm_model::{BLOCK_TOKENS, KvBlock};
use sha2::{Digest, Sha256};

type BlockId = [u8; 32];

/// Within which requests may share what was computed: the caller and the licenses in force.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheDomain([u8; 32]);

impl CacheDomain {
    /// The domain of everything that is given here, in this order; each part is told apart from its neighbours.
    pub fn new<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        CacheDomain(hasher.finalize().into())
    }
}

/// The digests of the full blocks of a sequence, as far as they have been computed.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    domain: CacheDomain,
    ids: Vec<BlockId>,
}

impl Chain {
    pub(super) fn new(domain: CacheDomain) -> Self {
        Chain { domain, ids: Vec::new() }
    }

    /// Goes on to the last full block of `tokens`, the sequence from its start.
    fn extend(&mut self, tokens: &[u32]) {
        for block in tokens.chunks_exact(BLOCK_TOKENS).skip(self.ids.len()) {
            let mut hasher = Sha256::new_with_prefix(self.ids.last().unwrap_or(&self.domain.0));
            block.iter().for_each(|token| hasher.update(token.to_le_bytes()));
            self.ids.push(hasher.finalize().into());
        }
    }
}

struct Entry {
    block: Arc<KvBlock>,
    /// When it was last of use. A block is never older than those behind it in a sequence.
    used: u64,
}

/// What is found of a sequence's beginning.
pub(super) enum Found {
    /// Blocks that need not be computed again, from the first on.
    Blocks(Vec<Arc<KvBlock>>),
    /// Another sequence is computing the next block just now: waiting is cheaper than doing it twice.
    UnderWay,
}

/// A claim on blocks that a sequence is about to compute; dropping it gives the claim up.
pub(super) type Claim = Arc<()>;

/// The cache. What it may hold is bounded by the pool its blocks come from.
#[derive(Default)]
pub(super) struct PrefixCache {
    entries: HashMap<BlockId, Entry>,
    claims: HashMap<BlockId, Weak<()>>,
    clock: u64,
}

impl PrefixCache {
    /// Looks for the beginning of `tokens`, at most `most` blocks.
    pub(super) fn find(&mut self, chain: &mut Chain, tokens: &[u32], most: usize) -> Found {
        chain.extend(tokens);
        let ids = &chain.ids[..chain.ids.len().min(most)];
        let known = ids.iter().take_while(|id| self.entries.contains_key(*id)).count();
        if ids.get(known).and_then(|id| self.claims.get(id)).is_some_and(|claim| claim.strong_count() > 0) {
            return Found::UnderWay;
        }
        Found::Blocks(self.touch(&ids[..known]))
    }

    /// Marks blocks as just used, the first ones as the most recent.
    fn touch(&mut self, ids: &[BlockId]) -> Vec<Arc<KvBlock>> {
        self.clock += ids.len() as u64;
        let mut blocks = Vec::with_capacity(ids.len());
        for (age, id) in ids.iter().enumerate() {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.used = self.clock - age as u64;
                blocks.push(Arc::clone(&entry.block));
            }
        }
        blocks
    }

    /// Announces that a sequence computes the full blocks of `tokens` behind the first `known` ones.
    pub(super) fn claim(&mut self, chain: &mut Chain, tokens: &[u32], known: usize, claim: &Claim) {
        chain.extend(tokens);
        self.claims.retain(|_, claim| claim.strong_count() > 0);
        for id in chain.ids.iter().skip(known) {
            // What is there, or under way, is nobody else's to announce.
            if !self.entries.contains_key(id) {
                self.claims.entry(*id).or_insert_with(|| Arc::downgrade(claim));
            }
        }
    }

    /// Keeps the finished blocks of a sequence; `tokens` are those of the blocks, from the start.
    pub(super) fn keep(&mut self, chain: &mut Chain, tokens: &[u32], blocks: &[Arc<KvBlock>], kept: &mut usize) {
        if blocks.len() <= *kept {
            return;
        }
        chain.extend(tokens);
        for (id, block) in chain.ids.iter().zip(blocks).skip(*kept) {
            self.claims.remove(id);
            self.entries.entry(*id).or_insert_with(|| Entry { block: Arc::clone(block), used: 0 });
        }
        *kept = blocks.len();
        let ids = chain.ids[..blocks.len()].to_vec();
        self.touch(&ids);
    }

    /// Drops `missing` blocks that no sequence uses, those first that were of use the longest ago, and returns how many were
    /// dropped: none, if there are not that many.
    pub(super) fn evict(&mut self, missing: usize) -> usize {
        let mut idle: Vec<(u64, BlockId)> = self
            .entries
            .iter()
            .filter(|(_, entry)| Arc::strong_count(&entry.block) == 1)
            .map(|(id, entry)| (entry.used, *id))
            .collect();
        if idle.len() < missing {
            return 0;
        }
        idle.sort_unstable();
        idle.truncate(missing);
        idle.iter().for_each(|(_, id)| {
            self.entries.remove(id);
        });
        idle.len()
    }

    /// Blocks held.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use safelmm_model::{Generation, GenerationRequest, Work};

    use super::*;

    fn chain(domain: &str) -> Chain {
        Chain::new(CacheDomain::new([domain]))
    }

    #[test]
    fn a_domain_is_the_whole_of_its_parts() {
        assert_eq!(CacheDomain::new(["a", "b"]), CacheDomain::new(["a", "b"]));
        assert_ne!(CacheDomain::new(["ab"]), CacheDomain::new(["a", "b"]));
        assert_ne!(CacheDomain::new(["a", ""]), CacheDomain::new(["a"]));
    }

    #[test]
    fn the_id_of_a_block_depends_on_all_that_comes_before_and_on_the_domain() {
        let tokens: Vec<u32> = (0..BLOCK_TOKENS as u32 * 2 + 5).collect();
        let mut first = chain("a");
        first.extend(&tokens[..BLOCK_TOKENS + 1]);
        first.extend(&tokens);
        let mut again = chain("a");
        again.extend(&tokens);
        assert_eq!((first.ids.len(), &first.ids), (2, &again.ids), "in pieces or at once");
        let mut other = chain("b");
        other.extend(&tokens);
        assert!(other.ids.iter().all(|id| !first.ids.contains(id)));
        let mut changed = tokens.clone();
        changed[0] += 1;
        let mut different = chain("a");
        different.extend(&changed);
        assert_ne!(different.ids[1], first.ids[1]);
    }

    #[test]
    fn a_claimed_block_is_waited_for_until_the_claim_is_given_up() {
        let tokens: Vec<u32> = (0..BLOCK_TOKENS as u32 * 2).collect();
        let (mut cache, claim) = (PrefixCache::default(), Claim::default());
        cache.claim(&mut chain("a"), &tokens, 0, &claim);
        assert!(matches!(cache.find(&mut chain("a"), &tokens, 2), Found::UnderWay));
        assert!(matches!(cache.find(&mut chain("b"), &tokens, 2), Found::Blocks(blocks) if blocks.is_empty()));
        drop(claim);
        assert!(matches!(cache.find(&mut chain("a"), &tokens, 2), Found::Blocks(blocks) if blocks.is_empty()));
    }

    /// Runs a prompt of so many tokens on the demo; its blocks.
    fn blocks(tokens: &[u32]) -> Vec<Arc<KvBlock>> {
        let checkpoint = crate::demo::open().unwrap();
        let mut generation = Generation::new(&checkpoint, GenerationRequest::new(tokens.to_vec(), 1)).unwrap();
        let work = Work { generation: &mut generation, tokens: usize::MAX };
        safelmm_model::step(&checkpoint, &mut [work]).unwrap();
        let (_, blocks) = generation.finished_blocks().next().unwrap();
        blocks.to_vec()
    }

    #[test]
    fn the_oldest_go_first_from_their_ends_and_none_that_is_in_use() {
        let tokens: Vec<u32> = (300..300 + BLOCK_TOKENS as u32 * 3).collect();
        let made = blocks(&tokens);
        assert_eq!(made.len(), 3, "the start of the sequence is one token more");
        let mut cache = PrefixCache::default();
        let (mut old, mut new) = (chain("old"), chain("new"));
        cache.keep(&mut old, &tokens, &made, &mut 0);
        drop(made);
        cache.keep(&mut new, &tokens, &blocks(&tokens), &mut 0);
        assert_eq!((cache.len(), cache.evict(7)), (6, 0), "what cannot succeed throws nothing out");
        let known = |cache: &mut PrefixCache, chain: &mut Chain| match cache.find(chain, &tokens, 3) {
            Found::Blocks(blocks) => blocks.len(),
            Found::UnderWay => 0,
        };
        assert_eq!(cache.evict(1), 1);
        assert_eq!(known(&mut cache, &mut old), 2, "the end of the older sequence");
        assert_eq!(known(&mut cache, &mut new), 3);
        // The older one was looked for before the newer one, and is in use now.
        let Found::Blocks(used) = cache.find(&mut old, &tokens, 3) else { panic!("nothing is under way") };
        assert_eq!((used.len(), cache.evict(4), cache.evict(3)), (2, 0, 3));
        assert_eq!((known(&mut cache, &mut old), known(&mut cache, &mut new)), (2, 0));
        drop(used);
        assert_eq!((cache.evict(2), cache.len()), (2, 0));
    }
}
