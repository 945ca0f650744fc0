#include "store/store.h"
#include "infer/infer.h"
