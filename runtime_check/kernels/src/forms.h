/* Which values of a chain are kept in lanes. */
#ifndef SPARSE_FORMS_H
#define SPARSE_FORMS_H

#include "chain.h"

/* Fill in the forms of values whose extents are known, all but the pitches. */
void forms_choose(const struct chain *chain, struct value *values);

/* Output rows of one lane in a step, 0 where neither its input nor its output is in lanes. */
int64_t forms_group_rows(const struct step *step, const struct value *values);

/* Whether a convolution reads its input in lanes as it is; otherwise it makes a copy. */
bool forms_direct(const struct step *step, const struct value *values);

/* What a step's windows read around its input in lanes; plain where they do not read it as it is. */
struct form forms_stage(const struct step *step, const struct value *values);

#endif
