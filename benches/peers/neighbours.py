"""Peers of the vector index: `neighbours.py FOLDER DIM M EF_CONSTRUCTION` builds hnswlib, faiss and usearch indexes, one thread.

FOLDER holds base.f32 and queries.f32. Names and CPU seconds of building are printed, a line each, then an empty line. After
that every line `NAME K EF` on the standard input is answered by the CPU seconds that all queries took; the rows found,
[queries, K] u32, are in found.u32.
"""

import pathlib
import sys
import time

import faiss
import hnswlib
import numpy as np
import usearch.index

folder = pathlib.Path(sys.argv[1])
dim, m, ef_construction = map(int, sys.argv[2:])
base = np.fromfile(folder / "base.f32", "<f4").reshape(-1, dim)
queries = np.fromfile(folder / "queries.f32", "<f4").reshape(-1, dim)
faiss.omp_set_num_threads(1)


def hnswlib_f32():
    index = hnswlib.Index("l2", dim)
    index.init_index(len(base), M=m, ef_construction=ef_construction)
    index.add_items(base, num_threads=1)

    def search(k, ef):
        index.set_ef(max(ef, k))
        return index.knn_query(queries, k, num_threads=1)[0]

    return search


def faiss_hnsw(index):
    index.hnsw.efConstruction = ef_construction
    index.train(base)
    index.add(base)

    def search(k, ef):
        index.hnsw.efSearch = max(ef, k)
        return index.search(queries, k)[1]

    return search


def usearch_hnsw(dtype, metric):
    index = usearch.index.Index(
        ndim=dim, metric=metric, dtype=dtype, connectivity=m, expansion_add=ef_construction
    )
    index.add(np.arange(len(base)), base, threads=1)

    def search(k, ef):
        index.expansion_search = max(ef, k)
        return index.search(queries, k, threads=1).keys

    return search


# usearch keeps bytes of cosine distances alone, which order unit vectors as L2 does.
unit = np.allclose(np.linalg.norm(base[:1000], axis=1), 1, atol=1e-3)
peers = {
    "hnswlib": hnswlib_f32,
    "faiss HNSW": lambda: faiss_hnsw(faiss.IndexHNSWFlat(dim, m)),
    "faiss HNSW SQ8": lambda: faiss_hnsw(faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, m)),
    "usearch f32": lambda: usearch_hnsw("f32", "l2sq"),
    "usearch f16": lambda: usearch_hnsw("f16", "l2sq"),
}
if unit:
    peers["usearch i8"] = lambda: usearch_hnsw("i8", "cos")
search = {}
for name, build in peers.items():
    start = time.process_time()
    search[name] = build()
    print(name, time.process_time() - start, sep="\t", flush=True)
print(flush=True)

for line in sys.stdin:
    name, k, ef = line.rstrip("\n").split("\t")
    start = time.process_time()
    found = search[name](int(k), int(ef))
    seconds = time.process_time() - start
    found.astype("<u4").tofile(folder / "found.u32")
    print(seconds, flush=True)
