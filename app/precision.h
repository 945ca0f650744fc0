/* In which precision the detector runs: the configuration's word, and what calibration found on this processor, kept in
 * the data folder by processor, library and model. */
#ifndef PULMO_APP_PRECISION_H
#define PULMO_APP_PRECISION_H

#include "config.h"
#include "infer/infer.h"

struct cJSON;

/* What config->precision comes to for this model here: *mixed false = fp32. With "mixed", calibrates when that was not
 * done. ERR_CONFIG when what was kept cannot be read. */
bool precision_configured(const struct config *config, const struct infer_model *model, struct infer_precision *out,
                          bool *mixed, struct err *err) PULMO_MUST_USE;
/* Calibrates on the phantom and keeps the result in the data folder. A minute or two of one processor. */
bool precision_calibrate(const struct config *config, const struct infer_model *model, struct infer_calibration *out,
                         struct err *err) PULMO_MUST_USE;
/* The chest that it looks at, as the detector is given it: the phantom, the same everywhere. */
struct volume *precision_chest(struct err *err);
/* What was kept; ERR_NOT_FOUND when nothing was for this processor, library and model. */
bool precision_kept(const struct config *config, const struct infer_model *model, struct infer_calibration *out,
                    struct err *err) PULMO_MUST_USE;

/* As members of a JSON object: layers, weight_max, ranges. */
void precision_plan_add(struct cJSON *object, const struct infer_precision *plan);
/* ERR_INPUT when the members are not there or make no sense. */
bool precision_plan_read(const struct cJSON *object, struct infer_precision *out, struct err *err) PULMO_MUST_USE;
/* "2 of 20 layers fp32, 18 int8". */
void precision_plan_text(const struct infer_precision *plan, char *out, size_t size);
/* That with what was computed again, as the report says it. */
void precision_report_text(const struct infer_precision *plan, size_t findings_full, size_t tiles_full, char *out,
                           size_t size);

#endif
