#include "infer/graph.h"
