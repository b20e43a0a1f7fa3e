/* direct.c: the extension module loopnest._direct, which repeats small calls without Python.
 *
 * A checked call costs 2 to 5 us in Python and cffi, for work that takes 0.1 us: flags, dtypes and
 * shapes are looked at one by one, the output's size is worked out, pointers are made. But a second
 * call with the same shapes and options does the same with other addresses. So each op keeps
 * plans: what the checks saw (the key: dtype and shape of each array, every option) and what
 * they led to (machine code to call, its arguments, the output's shape). A call whose
 * arrays are beyond doubt and whose key is known is done here, in 0.2 us; anything else is a
 * miss: None is returned, and Python checks, computes, and tells what is wrong. See
 * python/loopnest/runtime/replay.py, which makes the plans. Neither cffi nor Numba's dispatcher can be had
 * below 1 us for four arrays, hence this file.
 *
 * One plan calls C kernels and Numba's alike: both take integers, addresses and doubles only. In the
 * calling conventions of x86-64 (System V) and aarch64 these travel in two independent sequences,
 * so one function type with 8 doubles and enough integers can call every one of them; what a
 * function does not look for in registers or on the stack is ignored. Elsewhere the module is
 * not to be had, and all calls take the way through Python.
 *
 * Everything here happens under the GIL but long kernels; free-threaded Pythons do without. */
#include <Python.h>
#include <stdlib.h>
#include <string.h>

#include "spin.h"

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#include <numpy/arrayobject.h>

#if !(defined(__x86_64__) && !defined(_WIN32)) && !defined(__aarch64__)
#error "loopnest._direct knows the calling conventions of x86-64 System V and aarch64 only"
#endif

enum {
    MOST_ARRAYS = 8,
    MOST_AXES = 8,
    MOST_OUTPUTS = 3,
    MOST_CALLS = 3,
    MOST_WORDS = 96,
    MOST_DOUBLES = 8,
    MOST_KEY = 128,
    PLANS = 128,      /* an op's; then new ones push out old ones, */
    PROBES = 4,       /* each of which has so many places */
    MOST_KEPT = 2000, /* plans made in all: who uses so many sizes does not repeat them */
    SEEN = 64,
    MOST_WORK = 8 << 20, /* bytes of work space: more comes with page faults */
};

typedef struct {
    int at, array; /* the word to fill, and the array whose address it gets; -1: work space */
    int64_t offset;
} Slot;

typedef struct {
    void *function;
    int words, slots, reports; /* reports: returns a status, as Numba's functions do */
    int passed;                /* words, rounded up to what there is a function type for */
    int first, last;           /* words that tell which items to compute, -1 if it has none; */
    int64_t items;             /* all of them */
    int large;                 /* who may use more threads than one does */
    int64_t word[MOST_WORDS];
    Slot slot[MOST_ARRAYS + 2];
    double doubles[MOST_DOUBLES];
} Call;

typedef struct {
    PyArray_Descr *descr; /* NULL: none is made, its place is None */
    int axes;
    npy_intp shape[MOST_AXES];
} Output;

typedef struct {
    Py_ssize_t references;
    uint64_t hash;
    int key_size, calls, release;
    int64_t key[MOST_KEY];
    Output output[MOST_OUTPUTS];
    size_t work;    /* bytes of work space of a thread */
    PyObject *kept; /* what the addresses in it belong to */
    Call call[MOST_CALLS];
} Plan;

typedef struct {
    PyObject_HEAD
    int arrays, live; /* doubles at the end of the arguments, passed on to the kernel */
    int outputs;      /* of the arrays, at their end */
    int kept;
    char kind[MOST_ARRAYS]; /* see replay.py */
    Plan *plans[PLANS];
    uint64_t seen[SEEN]; /* the last calls that were no plan's */
    unsigned calls_seen;
} Op;

/* What a call is about. */
typedef struct {
    int size;
    int64_t key[MOST_KEY];
    uint64_t hash;
    PyArrayObject *array[MOST_ARRAYS]; /* NULL for None */
    char *address[MOST_ARRAYS];
} Given;

static PyArray_Descr *float32, *float64, *int64; /* the ones of native byte order */
static uint64_t factors[MOST_KEY];               /* of the hash, a sum of products */
static int threads = 2; /* that a call may use; 2 stands for more than one until it is told */

/* Threads that wait for work: of python/loopnest/runtime/threads.py, which started them. */
static struct {
    ln_split_call *split;
    ln_semaphore *semaphore;
    int count;
    int64_t spin;
} helpers;

static void let_go(Plan *plan)
{
    if (plan && --plan->references == 0) {
        Py_XDECREF(plan->kept);
        PyMem_Free(plan);
    }
}

/* ---- the key ---- */

static int is_usual(const PyArray_Descr *descr)
{
    return descr == float32 || descr == float64 || descr == int64;
}

static int is_output(char kind) { return kind == 'o' || kind == 'i'; }

/* Integers and floats of exactly these types by value (True and 1.0 are no 1), tuples by their items;
 * names, None, True, False and modules by identity, for the plan keeps them alive. NULL for
 * what may change, or is too long. */
static int64_t *add_option(PyObject *option, int64_t *key, const int64_t *end)
{
    if (key > end) return NULL;
    if (PyLong_CheckExact(option)) {
        int overflow;
        *key++ = 1;
        *key++ = PyLong_AsLongLongAndOverflow(option, &overflow);
        return overflow ? NULL : key;
    }
    if (PyFloat_CheckExact(option)) {
        double value = PyFloat_AsDouble(option);
        *key++ = 2;
        memcpy(key++, &value, sizeof value);
        return key;
    }
    if (PyTuple_CheckExact(option)) {
        *key++ = 3;
        *key++ = PyTuple_Size(option);
        for (Py_ssize_t i = 0; key && i < PyTuple_Size(option); i++)
            key = add_option(PyTuple_GetItem(option, i), key, end);
        return key;
    }
    if (!(option == Py_None || option == Py_True || option == Py_False
          || PyUnicode_CheckExact(option) || Py_TYPE(option) == &PyModule_Type))
        return NULL;
    *key++ = 4;
    *key++ = (intptr_t)option;
    return key;
}

/* Read the arguments; 0 if there is anything about them that Python should look at. */
static int read_arguments(const Op *op, PyObject *const *args, Py_ssize_t count, Given *g)
{
    int64_t *key = g->key, *end = g->key + MOST_KEY - MOST_AXES - 4; /* room for what comes */
    Py_ssize_t options = count - op->live;
    if (count < op->arrays + op->live) return 0;
    for (int i = 0; i < op->arrays; i++) {
        PyArrayObject *array = (PyArrayObject *)args[i];
        g->array[i] = NULL, g->address[i] = NULL;
        if (args[i] == Py_None) {
            if (!is_output(op->kind[i])) *key++ = 0;
            continue;
        }
        if (!PyArray_CheckExact(args[i])) return 0;
        int wanted = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED;
        if (op->kind[i] != 'r') wanted |= NPY_ARRAY_WRITEABLE;
        PyArray_Descr *descr = PyArray_DESCR(array);
        if ((PyArray_FLAGS(array) & wanted) != wanted
            || !is_usual(descr) || PyArray_NDIM(array) > MOST_AXES || key > end)
            return 0;
        g->array[i] = array, g->address[i] = PyArray_BYTES(array);
        if (is_output(op->kind[i])) continue; /* compared with the plan's */
        *key++ = (intptr_t)descr;
        *key++ = PyArray_NDIM(array);
        for (int axis = 0; axis < PyArray_NDIM(array); axis++) *key++ = PyArray_DIM(array, axis);
    }
    for (Py_ssize_t i = op->arrays; i < options; i++)
        if (!(key = add_option(args[i], key, end))) return 0;
    for (Py_ssize_t i = options; i < count; i++)
        if (!PyFloat_CheckExact(args[i])) return 0;
    g->size = (int)(key - g->key);
    uint64_t hash = (uint64_t)g->size;
    for (int i = 0; i < g->size; i++) hash += (uint64_t)g->key[i] * factors[i];
    g->hash = hash ^ hash >> 32;
    return 1;
}

static int is_for(const Plan *plan, const Given *g)
{
    return plan && plan->hash == g->hash && plan->key_size == g->size
           && memcmp(plan->key, g->key, (size_t)g->size * sizeof *g->key) == 0;
}

/* The place of the plan for what is given; of the one to be pushed out if there is none. */
static Plan **place_of(Op *op, const Given *g)
{
    Plan **empty = NULL;
    for (uint64_t i = 0; i < PROBES; i++) {
        Plan **place = &op->plans[(g->hash + i) % PLANS], *plan = *place;
        if (is_for(plan, g)) return place;
        if (!plan && !empty) empty = place;
    }
    return empty ? empty : &op->plans[(g->hash + (unsigned)op->kept % PROBES) % PLANS];
}

/* How many of the threads that a call may use the plan's calls run on; 0 if it is of no use for them:
 * what is large is split, which takes helpers and a call that tells items. */
static int threads_of(const Plan *plan)
{
    int count = 1;
    for (int i = 0; i < plan->calls; i++) {
        if (!plan->call[i].large || threads == 1) continue;
        count = threads;
        if (plan->call[i].first < 0 || helpers.count < count - 1
            || plan->work > (size_t)(MOST_WORK / count))
            return 0;
    }
    return count;
}

#include "direct_call.h"

/* ---- making plans ---- */

static PyObject *op_wanted(Op *op, PyObject *const *args, Py_ssize_t count)
{
    Given g;
    if (op->kept >= MOST_KEPT || !read_arguments(op, args, count, &g)) Py_RETURN_FALSE;
    if (is_for(*place_of(op, &g), &g)) Py_RETURN_FALSE;
    for (int i = 0; i < SEEN; i++)
        if (op->seen[i] == g.hash) Py_RETURN_TRUE;
    op->seen[op->calls_seen++ % SEEN] = g.hash; /* a plan costs more than a call: only for what comes twice */
    Py_RETURN_FALSE;
}

static int64_t number(PyObject *tuple, Py_ssize_t i)
{
    return PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
}

static int read_call(PyObject *tuple, Call *call)
{
    PyObject *words, *slots, *doubles;
    unsigned long long address;
    long long items;
    if (!PyArg_ParseTuple(tuple, "KiO!O!O!iiLp", &address, &call->reports, &PyTuple_Type, &words,
                          &PyTuple_Type, &slots, &PyTuple_Type, &doubles, &call->first, &call->last,
                          &items, &call->large))
        return 0;
    call->function = (void *)(uintptr_t)address, call->items = items;
    call->words = (int)PyTuple_Size(words), call->slots = (int)PyTuple_Size(slots);
    if (call->words > MOST_WORDS || call->slots > MOST_ARRAYS + 2
        || PyTuple_Size(doubles) > MOST_DOUBLES || call->first >= call->words
        || call->last >= call->words || (call->first < 0) != (call->last < 0)) {
        PyErr_SetString(PyExc_ValueError, "too many arguments");
        return 0;
    }
    call->passed = words_passed(call->words);
    for (int i = 0; i < call->words; i++) call->word[i] = number(words, i);
    for (int i = 0; i < call->slots; i++) {
        PyObject *slot = PyTuple_GetItem(slots, i);
        if (!PyArg_ParseTuple(slot, "iiL", &call->slot[i].at, &call->slot[i].array,
                              &call->slot[i].offset))
            return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_Size(doubles); i++) {
        uint64_t bits = PyLong_AsUnsignedLongLong(PyTuple_GetItem(doubles, i));
        memcpy(&call->doubles[i], &bits, sizeof bits);
    }
    return !PyErr_Occurred();
}

/* 0 if it is nothing to make again. */
static int read_output(PyObject *given, Output *output)
{
    if (given == Py_None) return 1;
    if (!PyArray_Check(given)) return 0;
    PyArrayObject *array = (PyArrayObject *)given;
    output->descr = PyArray_DESCR(array), output->axes = PyArray_NDIM(array);
    if (!is_usual(output->descr) || output->axes > MOST_AXES) return 0;
    memcpy(output->shape, PyArray_DIMS(array), sizeof output->shape[0] * (size_t)output->axes);
    return 1;
}

/* keep(arguments, outputs, calls, bytes of work space, release the GIL, what to keep) */
static PyObject *op_keep(Op *op, PyObject *args)
{
    PyObject *arguments, *outputs, *calls, *kept;
    unsigned long long work;
    int release;
    Given g;
    if (!PyArg_ParseTuple(args, "O!O!O!KpO", &PyTuple_Type, &arguments, &PyTuple_Type, &outputs,
                          &PyTuple_Type, &calls, &work, &release, &kept))
        return NULL;
    PyObject *items[MOST_KEY];
    Py_ssize_t count = PyTuple_Size(arguments);
    if (count > MOST_KEY || PyTuple_Size(calls) > MOST_CALLS
        || PyTuple_Size(outputs) != op->outputs) {
        PyErr_SetString(PyExc_ValueError, "too many arguments or calls, or not all outputs");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) items[i] = PyTuple_GetItem(arguments, i);
    if (!read_arguments(op, items, count, &g)) Py_RETURN_NONE;
    Plan *plan = PyMem_Calloc(1, sizeof *plan);
    if (!plan) return PyErr_NoMemory();
    plan->references = 1, plan->hash = g.hash, plan->key_size = g.size;
    memcpy(plan->key, g.key, sizeof g.key[0] * (size_t)g.size);
    plan->work = (size_t)work, plan->release = release;
    for (int i = 0; i < op->outputs; i++)
        if (!read_output(PyTuple_GetItem(outputs, i), &plan->output[i])) {
            let_go(plan);
            Py_RETURN_NONE;
        }
    plan->calls = (int)PyTuple_Size(calls);
    for (int i = 0; i < plan->calls; i++)
        if (!read_call(PyTuple_GetItem(calls, i), &plan->call[i])) {
            let_go(plan);
            return NULL;
        }
    Py_INCREF(kept);
    plan->kept = kept;
    op->kept++;
    Plan **place = place_of(op, &g), *old = *place;
    *place = plan;
    let_go(old);
    Py_RETURN_NONE;
}

static PyObject *op_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    const char *kinds;
    int live;
    if (keywords || !PyArg_ParseTuple(args, "si", &kinds, &live)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "Op takes no keywords");
        return NULL;
    }
    size_t inputs = strspn(kinds, "rw"), outputs = strspn(kinds + inputs, "oi");
    size_t arrays = inputs + outputs;
    if (kinds[arrays] || arrays < 1 || arrays > MOST_ARRAYS || outputs > MOST_OUTPUTS || live < 0
        || live > MOST_DOUBLES) {
        PyErr_SetString(PyExc_ValueError,
                        "kinds: 1 to 8 of r, w, then up to 3 of them o, i; live: 0 to 8");
        return NULL;
    }
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Op *op = (Op *)make(type, 0);
    if (!op) return NULL;
    op->arrays = (int)arrays, op->outputs = (int)outputs, op->live = live;
    memcpy(op->kind, kinds, arrays);
    return (PyObject *)op;
}

static void op_free(Op *op)
{
    PyTypeObject *type = Py_TYPE(op);
    for (int i = 0; i < PLANS; i++) let_go(op->plans[i]);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(op);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"call", (PyCFunction)(void (*)(void))op_call, METH_FASTCALL,
     "call(*arrays, *options, *live): the result, or None: not known here"},
    {"wanted", (PyCFunction)(void (*)(void))op_wanted, METH_FASTCALL,
     "wanted(*arrays, *options, *live): whether to make a plan for such calls"},
    {"keep", (PyCFunction)op_keep, METH_VARARGS, "keep a plan"},
    {0},
};

static PyType_Slot slots[] = {
    {Py_tp_new, op_new},
    {Py_tp_dealloc, op_free},
    {Py_tp_methods, methods},
    {0},
};

static PyType_Spec spec = {"loopnest._direct.Op", sizeof(Op), 0, Py_TPFLAGS_DEFAULT, slots};

static PyObject *set_threads(PyObject *self, PyObject *count)
{
    (void)self;
    long value = PyLong_AsLong(count);
    if (value == -1 && PyErr_Occurred()) return NULL;
    threads = value < 2 ? 1 : value > 1 << 20 ? 1 << 20 : (int)value;
    Py_RETURN_NONE;
}

/* set_helpers(address of ln_split, address of the semaphore, how many wait for it, ns to spin) */
static PyObject *set_helpers(PyObject *self, PyObject *args)
{
    (void)self;
    unsigned long long split, semaphore;
    int count;
    long long spin;
    if (!PyArg_ParseTuple(args, "KKiL", &split, &semaphore, &count, &spin)) return NULL;
    helpers.split = (ln_split_call *)(uintptr_t)split;
    helpers.semaphore = (ln_semaphore *)(uintptr_t)semaphore;
    helpers.count = count, helpers.spin = spin;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"set_threads", set_threads, METH_O, "how many threads a call may use"},
    {"set_helpers", set_helpers, METH_VARARGS, "who computes pieces of large calls"},
    {0},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "loopnest._direct", "Small calls, repeated without Python.", -1,
    functions, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__direct(void)
{
    import_array();
    float32 = PyArray_DescrFromType(NPY_FLOAT32);
    float64 = PyArray_DescrFromType(NPY_FLOAT64);
    int64 = PyArray_DescrFromType(NPY_INT64);
    uint64_t factor = 1; /* odd numbers of no pattern: a linear congruential generator's */
    for (int i = 0; i < MOST_KEY; i++)
        factors[i] = factor = factor * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963406);
    PyObject *made = PyModule_Create(&module), *type = PyType_FromSpec(&spec);
    if (!made || !type || PyModule_AddObject(made, "Op", type) < 0) {
        Py_XDECREF(made);
        Py_XDECREF(type);
        return NULL;
    }
    return made;
}
