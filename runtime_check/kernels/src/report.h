/* What a session's layers were found to be, for whoever opened it to read. */
#ifndef SPARSE_REPORT_H
#define SPARSE_REPORT_H

#include <stddef.h>
#include <stdint.h>

/* Append one line to the report of session `id`: operator, non-zeros, weights, why not (or "") and name, with tabs
   between. Reports of id 0 are not kept. */
void report_layer(uint64_t id, const char *operator, int64_t nonzeros, int64_t weights, const char *reason,
                  const char *name);

/* The whole model, graphs inside nodes first, was gone through: an empty line. Onnxruntime begins anew where it has
   dissolved functions; the last time counts. */
void report_round(uint64_t id);

/* What the last round claimed is compiled: it stays, and further rounds do not see it. */
void report_compiled(uint64_t id);

#endif
