/* The part of onnxruntime's C interface that an execution provider of this kind needs, and nothing of its headers.
   Its structs only ever grow at the end; the positions asserted here are those of versions 1.23 to 1.32. Whoever
   includes this checks the version first: `ort_version_known`. */
#ifndef SPARSE_ORT_ABI_H
#define SPARSE_ORT_ABI_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The oldest interface with all functions below is the one asked for; releases newer than tested are refused. */
enum { ORT_INTERFACE = 23, ORT_OLDEST_MINOR = 23, ORT_NEWEST_MINOR = 32 };

enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2, ORT_EP_FAIL = 11 };
enum { ORT_FLOAT = 1, ORT_INT64 = 7 };
enum { ORT_ATTRIBUTE_INT = 1, ORT_ATTRIBUTE_INTS = 2, ORT_ATTRIBUTE_FLOAT = 3, ORT_ATTRIBUTE_STRING = 5 };
enum { ORT_DEVICE_CPU = 0 };

typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorInfo OrtTensorInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtGraph OrtGraph;
typedef struct OrtNode OrtNode;
typedef struct OrtValueInfo OrtValueInfo;
typedef struct OrtOpAttr OrtOpAttr;
typedef struct OrtHardwareDevice OrtHardwareDevice;
typedef struct OrtEpDevice OrtEpDevice;
typedef struct OrtKeyValuePairs OrtKeyValuePairs;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtLogger OrtLogger;
typedef struct OrtSupport OrtSupport;
typedef struct OrtComputeContext OrtComputeContext;

typedef struct OrtEpFactory OrtEpFactory;
typedef struct OrtFusionOptions OrtFusionOptions;

typedef void *unused;

typedef struct OrtEpApi {
  OrtStatus *(*CreateEpDevice)(OrtEpFactory *, const OrtHardwareDevice *, const OrtKeyValuePairs *,
                               const OrtKeyValuePairs *, OrtEpDevice **);
  unused to_2[1];
  OrtStatus *(*AddNodesToFuse)(OrtSupport *, const OrtNode *const *, size_t, const OrtFusionOptions *);
} OrtEpApi;

typedef struct OrtApi {
  OrtStatus *(*CreateStatus)(int, const char *);
  unused to_51[50];
  OrtStatus *(*GetTensorMutableData)(OrtValue *, void **);
  unused to_55[3];
  OrtStatus *(*CastTypeInfoToTensorInfo)(const OrtTypeInfo *, const OrtTensorInfo **);
  unused to_60[4];
  OrtStatus *(*GetTensorElementType)(const OrtTensorInfo *, int *);
  OrtStatus *(*GetDimensionsCount)(const OrtTensorInfo *, size_t *);
  OrtStatus *(*GetDimensions)(const OrtTensorInfo *, int64_t *, size_t);
  OrtStatus *(*GetSymbolicDimensions)(const OrtTensorInfo *, const char **, size_t);
  unused to_65[1];
  OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *, OrtTensorInfo **);
  unused to_88[22];
  OrtStatus *(*KernelContext_GetInputCount)(const OrtKernelContext *, size_t *);
  unused to_90[1];
  OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *, size_t, const OrtValue **);
  OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *, size_t, const int64_t *, size_t, OrtValue **);
  unused to_93[1];
  void (*ReleaseStatus)(OrtStatus *);
  unused to_99[5];
  void (*ReleaseTensorInfo)(OrtTensorInfo *);
  unused to_237[137];
  OrtStatus *(*HasSessionConfigEntry)(const OrtSessionOptions *, const char *, int *);
  OrtStatus *(*GetSessionConfigEntry)(const OrtSessionOptions *, const char *, char *, size_t *);
  unused to_272[33];
  OrtStatus *(*ReadOpAttr)(const OrtOpAttr *, int, void *, size_t, size_t *);
  unused to_274[1];
  OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *, void (*)(void *, size_t), size_t, size_t, void *);
  unused to_289[14];
  OrtStatus *(*GetValueInfoName)(const OrtValueInfo *, const char **);
  OrtStatus *(*GetValueInfoTypeInfo)(const OrtValueInfo *, const OrtTypeInfo **);
  unused to_307[16];
  int (*HardwareDevice_Type)(const OrtHardwareDevice *);
  unused to_317[9];
  const OrtEpApi *(*GetEpApi)(void);
  unused to_323[5];
  OrtStatus *(*ValueInfo_GetValueProducer)(const OrtValueInfo *, const OrtNode **, size_t *);
  OrtStatus *(*ValueInfo_GetValueNumConsumers)(const OrtValueInfo *, size_t *);
  OrtStatus *(*ValueInfo_GetValueConsumers)(const OrtValueInfo *, const OrtNode **, int64_t *, size_t);
  OrtStatus *(*ValueInfo_GetInitializerValue)(const OrtValueInfo *, const OrtValue **);
  unused to_330[3];
  OrtStatus *(*ValueInfo_IsGraphOutput)(const OrtValueInfo *, bool *);
  OrtStatus *(*ValueInfo_IsConstantInitializer)(const OrtValueInfo *, bool *);
  unused to_344[12];
  OrtStatus *(*Graph_GetNumNodes)(const OrtGraph *, size_t *);
  OrtStatus *(*Graph_GetNodes)(const OrtGraph *, const OrtNode **, size_t);
  OrtStatus *(*Graph_GetParentNode)(const OrtGraph *, const OrtNode **);
  unused to_348[1];
  OrtStatus *(*Node_GetId)(const OrtNode *, size_t *);
  OrtStatus *(*Node_GetName)(const OrtNode *, const char **);
  OrtStatus *(*Node_GetOperatorType)(const OrtNode *, const char **);
  OrtStatus *(*Node_GetDomain)(const OrtNode *, const char **);
  unused to_353[1];
  OrtStatus *(*Node_GetNumInputs)(const OrtNode *, size_t *);
  OrtStatus *(*Node_GetInputs)(const OrtNode *, const OrtValueInfo **, size_t);
  OrtStatus *(*Node_GetNumOutputs)(const OrtNode *, size_t *);
  OrtStatus *(*Node_GetOutputs)(const OrtNode *, const OrtValueInfo **, size_t);
  OrtStatus *(*Node_GetNumImplicitInputs)(const OrtNode *, size_t *);
  OrtStatus *(*Node_GetImplicitInputs)(const OrtNode *, const OrtValueInfo **, size_t);
  unused to_361[2];
  OrtStatus *(*Node_GetAttributeByName)(const OrtNode *, const char *, const OrtOpAttr **);
  unused to_363[1];
  OrtStatus *(*OpAttr_GetType)(const OrtOpAttr *, int *);
} OrtApi;

typedef struct OrtApiBase {
  const OrtApi *(*GetApi)(uint32_t);
  const char *(*GetVersionString)(void);
} OrtApiBase;

struct OrtFusionOptions {
  uint32_t version;
  bool drop_constant_initializers;
};

typedef struct OrtNodeComputeInfo {
  uint32_t version;
  OrtStatus *(*CreateState)(struct OrtNodeComputeInfo *, OrtComputeContext *, void **);
  OrtStatus *(*Compute)(struct OrtNodeComputeInfo *, void *, OrtKernelContext *);
  void (*ReleaseState)(struct OrtNodeComputeInfo *, void *);
} OrtNodeComputeInfo;

/* Members that stay NULL are optional. */
typedef struct OrtEp {
  uint32_t version;
  const char *(*GetName)(const struct OrtEp *);
  OrtStatus *(*GetCapability)(struct OrtEp *, const OrtGraph *, OrtSupport *);
  OrtStatus *(*Compile)(struct OrtEp *, const OrtGraph **, const OrtNode **, size_t, OrtNodeComputeInfo **, OrtNode **);
  void (*ReleaseNodeComputeInfos)(struct OrtEp *, OrtNodeComputeInfo **, size_t);
  unused to_13[8];
} OrtEp;

struct OrtEpFactory {
  uint32_t version;
  const char *(*GetName)(const OrtEpFactory *);
  const char *(*GetVendor)(const OrtEpFactory *);
  OrtStatus *(*GetSupportedDevices)(OrtEpFactory *, const OrtHardwareDevice *const *, size_t, OrtEpDevice **,
                                    size_t, size_t *);
  OrtStatus *(*CreateEp)(OrtEpFactory *, const OrtHardwareDevice *const *, const OrtKeyValuePairs *const *,
                         size_t, const OrtSessionOptions *, const OrtLogger *, OrtEp **);
  void (*ReleaseEp)(OrtEpFactory *, OrtEp *);
  uint32_t (*GetVendorId)(const OrtEpFactory *);
  const char *(*GetVersion)(const OrtEpFactory *);
  unused Validate;
  OrtStatus *(*CreateAllocator)(OrtEpFactory *, const void *, const OrtKeyValuePairs *, void **);
  void (*ReleaseAllocator)(OrtEpFactory *, void *);
  OrtStatus *(*CreateDataTransfer)(OrtEpFactory *, void **);
  bool (*IsStreamAware)(const OrtEpFactory *);
  unused CreateSyncStream;
};

#define AT(type, member, position) \
  static_assert(offsetof(type, member) == (position) * sizeof(void *), #type "." #member)
AT(OrtEpApi, AddNodesToFuse, 2);
AT(OrtApi, GetTensorMutableData, 51);
AT(OrtApi, CastTypeInfoToTensorInfo, 55);
AT(OrtApi, GetTensorElementType, 60);
AT(OrtApi, GetDimensionsCount, 61);
AT(OrtApi, GetDimensions, 62);
AT(OrtApi, GetSymbolicDimensions, 63);
AT(OrtApi, GetTensorTypeAndShape, 65);
AT(OrtApi, KernelContext_GetInputCount, 88);
AT(OrtApi, KernelContext_GetInput, 90);
AT(OrtApi, KernelContext_GetOutput, 91);
AT(OrtApi, ReleaseStatus, 93);
AT(OrtApi, ReleaseTensorInfo, 99);
AT(OrtApi, HasSessionConfigEntry, 237);
AT(OrtApi, GetSessionConfigEntry, 238);
AT(OrtApi, ReadOpAttr, 272);
AT(OrtApi, KernelContext_ParallelFor, 274);
AT(OrtApi, GetValueInfoName, 289);
AT(OrtApi, GetValueInfoTypeInfo, 290);
AT(OrtApi, HardwareDevice_Type, 307);
AT(OrtApi, GetEpApi, 317);
AT(OrtApi, ValueInfo_GetValueProducer, 323);
AT(OrtApi, ValueInfo_GetValueNumConsumers, 324);
AT(OrtApi, ValueInfo_GetValueConsumers, 325);
AT(OrtApi, ValueInfo_GetInitializerValue, 326);
AT(OrtApi, ValueInfo_IsGraphOutput, 330);
AT(OrtApi, ValueInfo_IsConstantInitializer, 331);
AT(OrtApi, Graph_GetNumNodes, 344);
AT(OrtApi, Graph_GetNodes, 345);
AT(OrtApi, Graph_GetParentNode, 346);
AT(OrtApi, Node_GetId, 348);
AT(OrtApi, Node_GetName, 349);
AT(OrtApi, Node_GetOperatorType, 350);
AT(OrtApi, Node_GetDomain, 351);
AT(OrtApi, Node_GetNumInputs, 353);
AT(OrtApi, Node_GetInputs, 354);
AT(OrtApi, Node_GetNumOutputs, 355);
AT(OrtApi, Node_GetOutputs, 356);
AT(OrtApi, Node_GetNumImplicitInputs, 357);
AT(OrtApi, Node_GetAttributeByName, 361);
AT(OrtApi, OpAttr_GetType, 363);
AT(OrtNodeComputeInfo, ReleaseState, 3);
AT(OrtEp, ReleaseNodeComputeInfos, 4);
AT(OrtEpFactory, GetVersion, 7);
AT(OrtEpFactory, CreateAllocator, 9);
AT(OrtEpFactory, CreateDataTransfer, 11);
AT(OrtEpFactory, IsStreamAware, 12);
static_assert(sizeof(OrtFusionOptions) == 8 && offsetof(OrtFusionOptions, drop_constant_initializers) == 4, "fusion");
static_assert(sizeof(OrtNodeComputeInfo) == 4 * sizeof(void *), "OrtNodeComputeInfo");
static_assert(sizeof(OrtEp) == 13 * sizeof(void *), "OrtEp of interface 23");
static_assert(sizeof(OrtEpFactory) == 14 * sizeof(void *), "OrtEpFactory of interface 23");
#undef AT

#endif
