/* direct_call.h: a part of direct.c, the call of a plan's kernels: in one piece, or in pieces over the
 * helper threads (spin.c). The plans and what a call is given are described there. */

static int fits(PyArrayObject *out, const Output *wanted)
{
    if (PyArray_DESCR(out) != wanted->descr || PyArray_NDIM(out) != wanted->axes) return 0;
    for (int i = 0; i < wanted->axes; i++)
        if (PyArray_DIM(out, i) != wanted->shape[i]) return 0;
    return 1;
}

/* Whether a written array shares memory with another one; kind 'i' may be exactly an input. */
static int overlap(const Op *op, const Given *g)
{
    for (int i = 0; i < op->arrays; i++) {
        if (op->kind[i] == 'r' || !g->array[i]) continue;
        const char *start = g->address[i], *end = start + PyArray_NBYTES(g->array[i]);
        for (int j = 0; j < op->arrays; j++) {
            if (j == i || !g->array[j]) continue;
            const char *other = g->address[j], *other_end = other + PyArray_NBYTES(g->array[j]);
            int same = op->kind[i] == 'i' && other == start && other_end == end;
            if (start < other_end && other < end && !same) return 1;
        }
    }
    return 0;
}

#define I4(i) w[i], w[i + 1], w[i + 2], w[i + 3]
#define I16(i) I4(i), I4(i + 4), I4(i + 8), I4(i + 12)
#define FLOATS d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]
#define INTEGERS4 int64_t, int64_t, int64_t, int64_t
#define INTEGERS16 INTEGERS4, INTEGERS4, INTEGERS4, INTEGERS4
#define DOUBLES double, double, double, double, double, double, double, double
typedef int32_t with_16(DOUBLES, INTEGERS16);
typedef int32_t with_32(DOUBLES, INTEGERS16, INTEGERS16);
typedef int32_t with_48(DOUBLES, INTEGERS16, INTEGERS16, INTEGERS16);
typedef int32_t with_64(DOUBLES, INTEGERS16, INTEGERS16, INTEGERS16, INTEGERS16);
typedef int32_t with_96(DOUBLES, INTEGERS16, INTEGERS16, INTEGERS16, INTEGERS16, INTEGERS16,
                        INTEGERS16);

static int words_passed(int words) { return words <= 64 ? (words + 15) / 16 * 16 : MOST_WORDS; }

static int32_t call_with(void *function, int passed, const double *d, const int64_t *w)
{
    switch (passed) {
    case 16: return ((with_16 *)function)(FLOATS, I16(0));
    case 32: return ((with_32 *)function)(FLOATS, I16(0), I16(16));
    case 48: return ((with_48 *)function)(FLOATS, I16(0), I16(16), I16(32));
    case 64: return ((with_64 *)function)(FLOATS, I16(0), I16(16), I16(32), I16(48));
    default:
        return ((with_96 *)function)(FLOATS, I16(0), I16(16), I16(32), I16(48), I16(64), I16(80));
    }
}

/* What a plan was given. */
typedef struct {
    char *const *address;
    const double *live;
    int live_count;
    char *work; /* of all threads, so many bytes for each: */
    size_t work_size;
    int threads;
} Arguments;

/* Items [first, last) of a call, if it tells items. */
static int run_part(const Call *call, const Arguments *given, int runner, int64_t first, int64_t last)
{
    int64_t w[MOST_WORDS]; /* as many as are passed; zeros after the call's own */
    double d[MOST_DOUBLES];
    const char *work = given->work + given->work_size * (size_t)runner;
    memcpy(w, call->word, sizeof w[0] * (size_t)call->passed);
    memcpy(d, call->doubles, sizeof d);
    for (int i = 0; i < given->live_count; i++) d[i] = given->live[i];
    for (int i = 0; i < call->slots; i++) {
        const Slot *s = &call->slot[i];
        w[s->at] = (intptr_t)(s->array < 0 ? work : given->address[s->array]) + s->offset;
    }
    if (call->first >= 0) w[call->first] = first, w[call->last] = last;
    void *returned = NULL, *raised = NULL;
    if (call->reports) w[0] = (intptr_t)&returned, w[1] = (intptr_t)&raised;
    int32_t status = call_with(call->function, call->passed, d, w);
    return call->reports ? status : 0;
}

typedef struct {
    const Call *call;
    const Arguments *given;
    int failed;
} Split;

static void run_piece(void *made, int runner, int64_t first, int64_t last)
{
    Split *split = made;
    if (run_part(split->call, split->given, runner, first, last))
        __atomic_store_n(&split->failed, 1, __ATOMIC_RELAXED);
}

static int run_call(const Call *call, const Arguments *given)
{
    if (!call->large || given->threads == 1 || call->items < 2)
        return run_part(call, given, 0, 0, call->items);
    Split split = {call, given, 0};
    int64_t most = given->threads < call->items ? given->threads : call->items;
    int64_t pieces = most > 2 ? 2 * most : most; /* see threads.py */
    if (pieces > call->items) pieces = call->items;
    helpers.split(helpers.semaphore, run_piece, &split, call->items, pieces, (int)most - 1, helpers.spin);
    return split.failed;
}

static int run(const Op *op, const Plan *plan, const Given *g, const double *live, int count)
{
    /* A page between the threads' parts: a CPU that reads ahead would take lines away from another. */
    size_t own = count > 1 ? ((plan->work + 63) & ~(size_t)63) + 4096 : plan->work;
    Arguments given = {g->address, live, op->live, NULL, own, count};
    char *memory = NULL;
    int status = 0;
    if (plan->work) {
        if (!(memory = malloc(own * (size_t)count + 64))) {
            PyErr_NoMemory();
            return -1;
        }
        given.work = memory + (-(uintptr_t)memory & 63);
    }
    PyThreadState *state = plan->release ? PyEval_SaveThread() : NULL;
    for (int i = 0; i < plan->calls && !status; i++) status = run_call(&plan->call[i], &given);
    if (state) PyEval_RestoreThread(state);
    free(memory);
    if (status) PyErr_SetString(PyExc_RuntimeError, "loopnest: a kernel failed");
    return status ? -1 : 0;
}

/* The outputs that were given, new arrays for others, None for those that the plan has not; -1 if
 * memory is short. */
static int make_outputs(const Op *op, const Plan *plan, PyObject *const *out, Given *g,
                        PyObject **made)
{
    int status = 0;
    for (int i = 0; i < op->outputs; i++) {
        const Output *wanted = &plan->output[i];
        if (out[i] != Py_None || !wanted->descr || status) {
            Py_INCREF(out[i]);
            made[i] = out[i];
            continue;
        }
        Py_INCREF(wanted->descr);
        made[i] = PyArray_NewFromDescr(&PyArray_Type, wanted->descr, wanted->axes, wanted->shape,
                                       NULL, NULL, 0, NULL);
        if (made[i])
            g->address[op->arrays - op->outputs + i] = PyArray_BYTES((PyArrayObject *)made[i]);
        else
            status = -1;
    }
    return status;
}

/* The one output, a tuple of several, True for none. */
static PyObject *result_of(const Op *op, PyObject **made, int failed)
{
    PyObject *result = NULL;
    if (!failed && op->outputs == 1) return made[0];
    if (!failed && !op->outputs) Py_RETURN_TRUE;
    if (!failed) result = PyTuple_New(op->outputs);
    for (int i = 0; i < op->outputs; i++)
        if (result)
            PyTuple_SetItem(result, i, made[i]);
        else
            Py_XDECREF(made[i]);
    return result;
}

static PyObject *op_call(Op *op, PyObject *const *args, Py_ssize_t count)
{
    Given g;
    if (!read_arguments(op, args, count, &g)) Py_RETURN_NONE;
    Plan *plan = *place_of(op, &g);
    int count_of_threads = is_for(plan, &g) ? threads_of(plan) : 0;
    if (!count_of_threads) Py_RETURN_NONE;
    PyObject *const *out = args + op->arrays - op->outputs;
    PyArrayObject **given = g.array + op->arrays - op->outputs;
    for (int i = 0; i < op->outputs; i++)
        if (given[i] && !fits(given[i], &plan->output[i])) Py_RETURN_NONE;
    if (overlap(op, &g)) Py_RETURN_NONE;
    plan->references++; /* another thread may push it out meanwhile */
    PyObject *made[MOST_OUTPUTS];
    int status = make_outputs(op, plan, out, &g, made);
    double live[MOST_DOUBLES];
    for (int i = 0; i < op->live; i++) live[i] = PyFloat_AsDouble(args[count - op->live + i]);
    if (!status) status = run(op, plan, &g, live, count_of_threads);
    let_go(plan);
    return result_of(op, made, status);
}
