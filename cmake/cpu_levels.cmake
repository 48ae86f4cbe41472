# The kernels under csrc/cpu/kernels are compiled once per instruction set, each time into a namespace of its own; the
# right set is chosen when the program runs (csrc/cpu/cpu.cpp). These files include no header with inline functions:
# the linker keeps one copy of such a function for the whole module, and it might keep the one with AVX-512 in it.

include(CheckCXXCompilerFlag)

set(onnxviz_cpu_levels baseline)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64|i[3-6]86)$")
  if(MSVC)
    set(onnxviz_flags_avx2 /arch:AVX2)
    set(onnxviz_flags_avx512 /arch:AVX512)
  else()
    set(onnxviz_flags_avx2 -mavx2 -mfma)
    set(onnxviz_flags_avx512
      -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mprefer-vector-width=512)
  endif()
  foreach(level IN ITEMS avx2 avx512)
    string(REPLACE ";" " " flags "${onnxviz_flags_${level}}")
    check_cxx_compiler_flag("${flags}" onnxviz_compiler_knows_${level})
    if(onnxviz_compiler_knows_${level})
      list(APPEND onnxviz_cpu_levels ${level})
    endif()
  endforeach()
endif()

foreach(level IN ITEMS avx2 avx512)
  if(level IN_LIST onnxviz_cpu_levels)
    set(onnxviz_has_${level} 1)
  else()
    set(onnxviz_has_${level} 0)
  endif()
endforeach()

# Adds the kernels of every level to `target`.
function(onnxviz_add_kernels target)
  foreach(level IN LISTS onnxviz_cpu_levels)
    add_library(onnxviz_kernels_${level} OBJECT csrc/cpu/kernels/bounds.cpp csrc/cpu/kernels/distance.cpp
      csrc/cpu/kernels/encoding.cpp csrc/cpu/kernels/products.cpp)
    target_link_libraries(onnxviz_kernels_${level} PRIVATE onnxviz_flags)
    target_compile_definitions(onnxviz_kernels_${level} PRIVATE ONNXVIZ_LEVEL=${level})
    target_compile_options(onnxviz_kernels_${level} PRIVATE ${onnxviz_flags_${level}})
    if(NOT MSVC)
      # -O3 whatever the build type says beyond debugging: these loops exist to be vectorised.
      target_compile_options(onnxviz_kernels_${level} PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O3>)
      # The distance is the same number on every level, and so are the codes: no fused operation rounds differently.
      target_compile_options(onnxviz_kernels_${level} PRIVATE -ffp-contract=off)
    endif()
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:onnxviz_kernels_${level}>)
  endforeach()
endfunction()
